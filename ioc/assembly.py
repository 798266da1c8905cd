"""The IOC's parts, made from the starting values and joined to one another; nothing is started here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from ptychostream.errors import ConfigError
from ptychostream.ioc.comparison import Comparison
from ptychostream.ioc.engine_maker import EngineMaker, default_cache, plain_contract
from ptychostream.ioc.handlers import Operating, Parts
from ptychostream.ioc.images import ImageServer
from ptychostream.ioc.model_slot import EngineWish, ModelSlot
from ptychostream.ioc.position_desk import PositionDesk
from ptychostream.ioc.setpoints import DOSE_MODES, Start
from ptychostream.ioc.settings import ENGINES, POSITION_SOURCES, PRECISIONS, IocSettings
from ptychostream.ioc.stream import Stream
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings


def assemble(
    settings: IocSettings,
    start: Start,
    access: tuple[Path, str],
    on_slot: Callable[[], None],
    on_end: Callable[[str], None],
) -> Parts:
    """Make the parts.

    Parameters
    ----------
    settings, start
        The configuration, and the setpoints' starting values, which win where both name a thing.
    access
        Access security file and macros, for the images.
    on_slot
        Called when the model slot changes.
    on_end
        Called with a scan's id when a frame says that it was the last.
    """
    positions = PositionDesk(
        settings.positions.model_copy(
            update={
                "source": start.choice("PositionSource", POSITION_SOURCES),
                "x_attribute": start.texts["XAttribute"],
                "y_attribute": start.texts["YAttribute"],
                "route_file": start.texts["RouteFile"],
            }
        )
    )
    pipeline = Pipeline(_pipeline_settings(settings, start), positions.current)
    positions.connect(pipeline)
    operating = Operating(
        dose_scale=start.number("DoseScale"),
        dose_mode=DOSE_MODES.index(start.choice("DoseMode", DOSE_MODES)),
        scan_frames=int(start.number("ScanFrames")),
        model_file=start.texts["ModelFile"],
        max_latency_ms=start.number("MaxLatency"),
    )
    pipeline.dose_scale = operating.dose_scale
    slot = _make_slot(settings, start, pipeline, on_slot)
    return Parts(
        pipeline=pipeline,
        stream=Stream(pipeline, settings.input, on_end),
        slot=slot,
        images=ImageServer(settings.prefix, pipeline, slot.sha_of, access, start.number("PhaseRate")),
        positions=positions,
        comparison=Comparison(pipeline.stitched, start.texts["SSIMReference"], start.number("SSIMTolerance")),
        operating=operating,
    )


def _pipeline_settings(settings: IocSettings, start: Start) -> PipelineSettings:
    kept = {
        "batch": int(start.number("BatchSize")),
        "max_latency_s": start.number("MaxLatency") / 1e3,
        "queue_size": int(start.number("QueueSize")),
    }
    try:
        return PipelineSettings.model_validate({**settings.pipeline.model_dump(), **kept})
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{first['loc'][0]} = {first['input']!r}: {first['msg']}"
        raise ConfigError(what, where="autosave file", remedy="correct or remove that setpoint") from error


def _make_slot(settings: IocSettings, start: Start, pipeline: Pipeline, on_slot: Callable[[], None]) -> ModelSlot:
    maker = EngineMaker(settings.engine.cache_dir or default_cache(), settings.engine.threads)
    wish = EngineWish(
        name=start.choice("Engine", ENGINES),
        precision=start.choice("Precision", PRECISIONS),
        batch=int(start.number("BatchSize")),
    )
    return ModelSlot(
        maker,
        pipeline.swap_engine,
        plain_contract(settings.engine.frame_shape, settings.engine.pixel_m),
        wish=wish,
        directory=settings.model.directory,
        max_bytes=settings.model.max_bytes,
        on_change=on_slot,
    )
