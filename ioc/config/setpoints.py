"""What the setpoints start with: configuration, then what autosave kept, then what the command line said."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from ptychostream.errors import ConfigError
from ptychostream.ioc.config.settings import ENGINES, POSITION_SOURCES, PRECISIONS, IocSettings
from ptychostream.plugins.flow.decimator import MODES as DECIMATION


class Setpoint(NamedTuple):
    """A record and the configuration it starts from: `key` is the dotted key, `value` its text for the record."""

    key: str
    value: Callable[[IocSettings], object]


DOSE_MODES = ("Manual", "Auto")
"""States of the record DoseMode, in order."""
CLOCK_MODES = ("Manual", "Auto")
"""States of the record ClockOffsetMode, in order."""
DROP_POLICIES = ("drop_newest", "drop_oldest")
"""States of the record DropPolicy, in order."""

SETPOINTS: dict[str, Setpoint] = {
    "InputPVAName": Setpoint("input.pv", lambda s: s.input.pv),
    "DropPolicy": Setpoint("pipeline.when_full", lambda s: DROP_POLICIES.index(s.pipeline.when_full)),
    "Decimation": Setpoint("pipeline.decimation.mode", lambda s: DECIMATION.index(s.pipeline.decimation.mode)),
    "DecimationFactor": Setpoint("pipeline.decimation.factor", lambda s: s.pipeline.decimation.factor),
    "QueueSize": Setpoint("pipeline.queue_size", lambda s: s.pipeline.queue_size),
    "BatchSize": Setpoint("pipeline.batch", lambda s: s.pipeline.batch),
    "MaxLatency": Setpoint("pipeline.max_latency_s", lambda s: 1e3 * s.pipeline.max_latency_s),
    "ModelFile": Setpoint("model.file", lambda s: s.model.file or ""),
    "Engine": Setpoint("engine.name", lambda s: ENGINES.index(s.engine.name)),
    "Precision": Setpoint("engine.precision", lambda s: PRECISIONS.index(s.engine.precision)),
    "SSIMReference": Setpoint("ssim_reference", lambda s: s.ssim_reference or ""),
    "SSIMTolerance": Setpoint("ssim_tolerance", lambda s: s.ssim_tolerance),
    "CanaryLimit": Setpoint("canary_limit", lambda s: s.canary_limit),
    "RollbackTolerance": Setpoint("rollback_tolerance", lambda s: s.rollback_tolerance),
    "DoseScale": Setpoint("dose_scale", lambda s: s.dose_scale),
    "DoseMode": Setpoint("dose_mode", lambda s: DOSE_MODES.index(s.dose_mode)),
    "ScanFrames": Setpoint("scan.frames", lambda s: s.scan.frames),
    "PositionSource": Setpoint("positions.source", lambda s: POSITION_SOURCES.index(s.positions.source)),
    "XAttribute": Setpoint("positions.x_attribute", lambda s: s.positions.x_attribute),
    "YAttribute": Setpoint("positions.y_attribute", lambda s: s.positions.y_attribute),
    "RouteFile": Setpoint("positions.route_file", lambda s: s.positions.route_file or ""),
    "PositionPVAName": Setpoint("positions.stream.pv", lambda s: s.positions.stream.pv),
    "PositionTolerance": Setpoint("positions.stream.tolerance_s", lambda s: 1e3 * s.positions.stream.tolerance_s),
    "ClockOffsetMode": Setpoint(
        "positions.stream.clock_offset_mode", lambda s: CLOCK_MODES.index(s.positions.stream.clock_offset_mode)
    ),
    "ClockOffset": Setpoint("positions.stream.clock_offset_s", lambda s: s.positions.stream.clock_offset_s),
    "MaxSpeed": Setpoint("positions.stream.max_speed_m_s", lambda s: 1e6 * s.positions.stream.max_speed_m_s),
    "SettleTime": Setpoint("positions.gate.settling_s", lambda s: s.positions.gate.settling_s),
    "FieldWidth": Setpoint("positions.gate.field_width_m", lambda s: 1e6 * s.positions.gate.field_width_m),
    "FieldHeight": Setpoint("positions.gate.field_height_m", lambda s: 1e6 * s.positions.gate.field_height_m),
    "FieldX": Setpoint("positions.gate.field_x_m", lambda s: 1e6 * s.positions.gate.field_x_m),
    "FieldY": Setpoint("positions.gate.field_y_m", lambda s: 1e6 * s.positions.gate.field_y_m),
    "KeepCanvases": Setpoint("scan.keep", lambda s: s.scan.keep),
    "SaveDirectory": Setpoint("save.directory", lambda s: s.save.directory or ""),
    "AutoSaveCanvas": Setpoint("save.automatic", lambda s: int(s.save.automatic)),
    "PhaseRate": Setpoint("phase_rate_hz", lambda s: s.phase_rate_hz),
}


class Start:
    """The starting values by record name without prefix, as text, and read as what they are.

    Parameters
    ----------
    settings
        The configuration, command line included.
    saved
        What autosave kept, by record name without prefix.
    given
        Dotted keys that the command line gave: they win over what was kept.
    """

    def __init__(self, settings: IocSettings, saved: Mapping[str, str], given: Collection[str]) -> None:
        self.texts: dict[str, str] = dict(saved)
        for name, setpoint in SETPOINTS.items():
            if name not in saved or setpoint.key in given:
                self.texts[name] = str(setpoint.value(settings))
        if "model.file" in given or not self.texts.get("ModelFile_RBV"):
            self.model_file = self.texts["ModelFile"]
        else:
            self.model_file = self.texts["ModelFile_RBV"]

    def number(self, name: str) -> float:
        """A value as a number. Raises ConfigError when what was kept is none."""
        return float(self._read(name, float))

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """A value as one of an enumeration's states. Raises ConfigError when what was kept is none."""
        index = int(self._read(name, int))
        if not 0 <= index < len(choices):
            raise self._bad(name)
        return choices[index]

    def _read(self, name: str, kind: Callable[[str], Any]) -> Any:
        try:
            return kind(self.texts[name])
        except ValueError:
            raise self._bad(name) from None

    def _bad(self, name: str) -> ConfigError:
        remedy = "correct or remove that line"
        return ConfigError(f"{name} = {self.texts[name]!r}", where="autosave file", remedy=remedy)
