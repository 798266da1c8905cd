"""The IOC's parts, made from the starting values and joined to one another; nothing is started here."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import ValidationError

from ptychostream.errors import ConfigError
from ptychostream.ioc.agent_desk import AgentDesk
from ptychostream.ioc.model.canary import Canary
from ptychostream.ioc.model.canary_rollback import Rollback
from ptychostream.ioc.images.canvas_saver import CanvasSaver
from ptychostream.ioc.collector.collector import Collector
from ptychostream.ioc.collector.collector_slot import ClusterSlot
from ptychostream.ioc.collector.collector_stream import CollectorStream, cluster_values
from ptychostream.ioc.images.comparison import Comparison
from ptychostream.ioc.model.engine_maker import EngineMaker
from ptychostream.ioc.handlers import Operating, Parts
from ptychostream.ioc.images.images import ImageServer
from ptychostream.ioc.model.model_slot import EngineWish, ModelSlot
from ptychostream.ioc.records.records import Value
from ptychostream.ioc.scan.position_sources import PositionSources
from ptychostream.ioc.images.provenance import provenance
from ptychostream.ioc.config.setpoints import CLOCK_MODES, DOSE_MODES, DROP_POLICIES, Start
from ptychostream.ioc.config.settings import ENGINES, POSITION_SOURCES, PRECISIONS, IocSettings, PositionSettings
from ptychostream.ioc.images.shown_canvas import ShownCanvas
from ptychostream.ioc.scan.stream import Stream
from ptychostream.plugins.flow.decimator import MODES as DECIMATION
from ptychostream.plugins.engines.cache import default_cache
from ptychostream.plugins.engines.plain import plain_contract
from ptychostream.plugins.frame_source import FrameSource
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.plugins.flow.snapshot import RunFigures, Stitched


def assemble(
    settings: IocSettings,
    start: Start,
    on_slot: Callable[[], None],
    on_end: Callable[[str], None],
) -> Parts:
    """Make the parts.

    Parameters
    ----------
    settings, start
        The configuration, and the setpoints' starting values, which win where both name a thing.
    on_slot
        Called when the model slot changes.
    on_end
        Called with a scan's id when a frame says that it was the last.
    """
    positions = PositionSources(_position_settings(settings.positions, start))
    scans = settings.scan.model_copy(update={"keep": int(start.number("KeepCanvases"))})
    made = _pipeline_settings(settings, start)
    pipeline: FrameSource
    slot: ModelSlot | ClusterSlot
    stream: Stream | CollectorStream
    in_cluster: Callable[[], dict[str, Value]]
    if settings.cluster.consumers:
        pipeline = collector = Collector(settings.cluster, made, scans, settings.prefix, on_end, on_slot)
        slot = _make_cluster_slot(settings, start, collector, on_slot)
        stream = CollectorStream(collector, settings.input.pv)
        in_cluster = partial(cluster_values, collector)
    else:
        in_cluster = dict
        pipeline = local = Pipeline(made, positions.current, scans)
        slot = _make_slot(settings, start, local, on_slot)
        local.on_patches = slot.canary.note
        # An end attribute ends an attribute's scan; PVs and pauses have ends of their own.
        ends = {} if scans.boundary == "attribute" else {"end_attribute": ""}
        stream = Stream(local.submit_all, local.reject, settings.input.model_copy(update=ends), on_end)
    positions.connect(pipeline)
    operating = Operating(
        dose_scale=start.number("DoseScale"),
        dose_mode=DOSE_MODES.index(start.choice("DoseMode", DOSE_MODES)),
        scan_frames=int(start.number("ScanFrames")),
        model_file=start.texts["ModelFile"],
        max_latency_ms=start.number("MaxLatency"),
    )
    pipeline.dose_scale, pipeline.scan_dose.automatic = operating.dose_scale, operating.dose_mode == 1
    shown = ShownCanvas(pipeline)
    saver = _make_saver(settings, start, pipeline, positions, slot.sha_of, on_slot)
    return Parts(
        pipeline=pipeline,
        stream=stream,
        slot=slot,
        images=ImageServer(
            settings.prefix,
            shown,
            slot.sha_of,
            start.number("PhaseRate"),
            pipeline.times,
            settings.engine.frame_shape,
        ),
        positions=positions,
        comparison=Comparison(pipeline.stitched, start.texts["SSIMReference"], start.number("SSIMTolerance")),
        operating=operating,
        shown=shown,
        saver=saver,
        agent=AgentDesk(settings.agent.timeout_s, on_slot),
        rollback=Rollback(slot, start.number("RollbackTolerance")),
        cluster_values=in_cluster,
    )


def _make_saver(
    settings: IocSettings,
    start: Start,
    pipeline: FrameSource,
    positions: PositionSources,
    sha_of: Callable[[str], str],
    on_change: Callable[[], None],
) -> CanvasSaver:
    def describe(stitched: Stitched, figures: RunFigures) -> dict[str, Any]:
        source = {
            "source": positions.name,
            "x_attribute": positions.x_attribute,
            "y_attribute": positions.y_attribute,
            "route_file": positions.route_file,
            "first_id": settings.positions.first_id,
            "axes": settings.positions.axes.model_dump(mode="json"),
        }
        clocks = {"now": time.time(), "monotonic": time.monotonic()}
        return provenance(stitched, figures, positions=source, boundary=settings.scan, sha_of=sha_of, **clocks)

    def figures_of(run: int) -> RunFigures | None:
        return next((figures for figures in pipeline.snapshot().runs if figures.number == run), None)

    saver = CanvasSaver(
        figures_of,
        describe,
        directory=start.texts["SaveDirectory"],
        automatic=start.texts["AutoSaveCanvas"] == "1",
        delay_s=settings.save.delay_s,
        queue=settings.save.queue,
        on_change=on_change,
    )
    pipeline.on_finished = saver.finished
    return saver


def _position_settings(settings: PositionSettings, start: Start) -> PositionSettings:
    stream = {
        "pv": start.texts["PositionPVAName"],
        "tolerance_s": start.number("PositionTolerance") / 1e3,
        "clock_offset_mode": start.choice("ClockOffsetMode", CLOCK_MODES),
        "clock_offset_s": start.number("ClockOffset"),
        "max_speed_m_s": start.number("MaxSpeed") * 1e-6,
    }
    gate = {
        "settling_s": start.number("SettleTime"),
        "field_width_m": start.number("FieldWidth") * 1e-6,
        "field_height_m": start.number("FieldHeight") * 1e-6,
        "field_x_m": start.number("FieldX") * 1e-6,
        "field_y_m": start.number("FieldY") * 1e-6,
    }
    return settings.model_copy(
        update={
            "source": start.choice("PositionSource", POSITION_SOURCES),
            "x_attribute": start.texts["XAttribute"],
            "y_attribute": start.texts["YAttribute"],
            "route_file": start.texts["RouteFile"],
            "stream": settings.stream.model_copy(update=stream),
            "gate": settings.gate.model_copy(update=gate),
        }
    )


def _pipeline_settings(settings: IocSettings, start: Start) -> PipelineSettings:
    kept = {
        "batch": int(start.number("BatchSize")),
        "max_latency_s": start.number("MaxLatency") / 1e3,
        "queue_size": int(start.number("QueueSize")),
        "when_full": start.choice("DropPolicy", DROP_POLICIES),
        "decimation": {
            "mode": start.choice("Decimation", DECIMATION),
            "factor": int(start.number("DecimationFactor")),
        },
    }
    try:
        return PipelineSettings.model_validate({**settings.pipeline.model_dump(), **kept})
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{first['loc'][0]} = {first['input']!r}: {first['msg']}"
        raise ConfigError(what, where="autosave file", remedy="correct or remove that setpoint") from error


def _engine_wish(settings: IocSettings, start: Start) -> EngineWish:
    return EngineWish(
        name=start.choice("Engine", ENGINES),
        precision=start.choice("Precision", PRECISIONS),
        batch=int(start.number("BatchSize")),
        backlog_batches=settings.pipeline.backlog_batches,
    )


def _make_cluster_slot(
    settings: IocSettings, start: Start, collector: Collector, on_slot: Callable[[], None]
) -> ClusterSlot:
    slot = ClusterSlot(
        collector.run_model,
        wish=_engine_wish(settings, start),
        directory=settings.model.directory,
        max_bytes=settings.model.max_bytes,
        on_change=on_slot,
    )
    collector.on_reports = slot.hear
    return slot


def _make_slot(settings: IocSettings, start: Start, pipeline: Pipeline, on_slot: Callable[[], None]) -> ModelSlot:
    return ModelSlot(
        EngineMaker(settings.engine.cache_dir or default_cache(), settings.engine.threads, settings.engine.automatic),
        pipeline.swap_engine,
        plain_contract(settings.engine.frame_shape, settings.engine.pixel_m),
        wish=_engine_wish(settings, start),
        directory=settings.model.directory,
        max_bytes=settings.model.max_bytes,
        on_change=on_slot,
        canary=Canary(start.number("CanaryLimit"), lambda: pipeline.scan_dose.automatic),
    )
