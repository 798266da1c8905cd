"""Which PandABox is read, and which of its fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ptychostream.config import Setting, Settings


class PandaSettings(Settings):
    """A PandABox, and which of its captured fields are x and y."""

    host: Annotated[str, Setting(
        "PandAHost", "PandABox that is read", group="positions", length=128, flag="--panda-host",
        help="name or address of a PandABox",
    )] = ""  # fmt: skip
    """Name or address of the box."""
    control_port: int = Field(8888, ge=1, le=65535)
    """Port of its commands."""
    data_port: int = Field(8889, ge=1, le=65535)
    """Port of its captures."""
    x: Annotated[str, Setting(flag="--panda-x", help="captured field that is x")] = "INENC1.VAL"
    """Captured field that is x, such as INENC1.VAL, or with the kind of capture: INENC1.VAL.Mean."""
    y: Annotated[str, Setting(flag="--panda-y", help="captured field that is y")] = "INENC2.VAL"
    """Captured field that is y."""
    unit: str = ""
    """Unit of the two if the box has none for them. Empty: a capture without units is refused."""
