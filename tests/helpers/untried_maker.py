"""An engine maker without the trial in a child, for tests of what comes after it."""

from __future__ import annotations

import threading
from pathlib import Path

from ptychostream.ioc.model.engine_maker import EngineMaker
from ptychostream.ioc.model.model_slot import EngineWish


class UntriedMaker(EngineMaker):
    """Builds as the IOC does."""

    def try_out(
        self, wish: EngineWish, data: bytes, sidecar: bytes | None, path: Path, give_up: threading.Event
    ) -> None:
        """Do nothing: the slot parses the model itself."""
