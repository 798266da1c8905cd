"""The model of the configuration, and the engine that is to run it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ptychostream.doctor.finding import Finding, fail, ok, warn
from ptychostream.errors import PtychostreamError
from ptychostream.ioc.config.settings import IocSettings
from ptychostream.model.contract import ModelContract
from ptychostream.model.model_file import load_model
from ptychostream.plugins.engines.base import EngineStatus


def check_model(settings: IocSettings) -> tuple[Finding, ModelContract | None]:
    """The finding, and the contract of the model that will run."""
    if settings.engine.name == "None":
        return ok("model", "engine None: frames are shown as they are"), None
    if settings.model.file is None:
        what = "model.file is not set: frames are dropped until a model is loaded or pushed"
        return warn("model", what, "name a model, or push one: ptychostream model push"), None
    path = Path(settings.model.directory or ".") / settings.model.file
    try:
        contract = load_model(path, settings.model.max_bytes).contract
    except PtychostreamError as error:
        return fail("model", f"{path}: {error.what}", error.remedy), None
    return ok("model", f"{path}: {contract.name}, object pixel {1e9 * contract.object_pixel_m:.4g} nm"), contract


def check_engine(settings: IocSettings, engines: Sequence[EngineStatus]) -> Finding:
    """Whether the engine that is wanted can run here.

    Parameters
    ----------
    engines
        What this machine has, the fastest first.
    """
    wanted = settings.engine.name
    if wanted == "None":
        return ok("engine", "None")
    here = [one for one in engines if one.available]
    if wanted == "Auto":
        if settings.engine.own:
            return ok("engine", f"one of your own: {settings.engine.own}")
        if not here:
            return fail("engine", "no inference engine can run here", "pip install 'ptychostream[edge]'")
        return ok("engine", f"{here[0].name}: {here[0].reason}")
    found = next((one for one in engines if one.name == wanted), None)
    if found is None or not found.available:
        reason = found.reason if found else "no engine of that name"
        remedy = f"set engine.name to {' or '.join(['Auto', *(one.name for one in here)])}"
        return fail("engine", f"{wanted} cannot run here: {reason}", remedy)
    return ok("engine", f"{wanted}: {found.reason}")
