"""A position source of one's own: a rotating stage that sends radius and angle instead of x and y.

    PYTHONPATH=examples ptychostream ioc --config ioc.toml ...

with this in ioc.toml:

    [positions]
    own = "own_position_source:PolarPositions"
    x_attribute = "Radius"
    y_attribute = "Angle"
"""

import math

from ptychostream.frames.frames import Frame
from ptychostream.positions.positions import EVERY_ID, AxisConfig, NeverPlaced


class PolarPositions:
    """Radius in the unit of the axes, angle in degrees; see `ptychostream.positions.positions.PositionSource`."""

    version = 0  # changes when a position that was not known has become known; here each frame brings its own
    known_below = EVERY_ID
    outlasts_scan = True

    def __init__(self, radius: str, angle: str, axes: AxisConfig) -> None:
        self._radius, self._angle, self._axes = radius, angle, axes

    def key(self, frame: Frame) -> float:
        """Positions become known by the frame's id."""
        return frame.id

    def lookup(self, frame: Frame) -> tuple[float, float] | None:
        """(x, y) in metres."""
        try:
            radius, angle = float(frame.attributes[self._radius]), float(frame.attributes[self._angle])
        except (KeyError, ValueError) as error:
            raise NeverPlaced(f"frame {frame.id}: {error}") from None
        return self._axes.apply(radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle)))
