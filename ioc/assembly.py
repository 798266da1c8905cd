"""The IOC's parts, made from the settings and connected to one another; nothing is started here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptychostream.ioc.attached_agent import AttachedAgent
from ptychostream.model.contract import ModelContract
from ptychostream.ioc.model.canary import Canary
from ptychostream.ioc.model.canary_rollback import Rollback
from ptychostream.ioc.images.canvas_saver import CanvasSaver
from ptychostream.ioc.collector.collector import Collector
from ptychostream.ioc.collector.collector_slot import ClusterSlot
from ptychostream.ioc.collector.collector_stream import CollectorStream
from ptychostream.ioc.images.comparison import Comparison
from ptychostream.ioc.model.verdicts import Verdicts
from ptychostream.ioc.model.engine_maker import EngineMaker
from ptychostream.ioc.handlers import Parts
from ptychostream.ioc.images.images import ImageServer
from ptychostream.ioc.model.model_slot import EngineWish, ModelSlot
from ptychostream.ioc.scan.position_sources import PositionSources
from ptychostream.ioc.images.provenance import provenance
from ptychostream.ioc.images.refined_images import REFINED_IMAGES, RefinedImages
from ptychostream.ioc.config.settings import IocSettings
from ptychostream.ioc.images.shown_canvas import ShownCanvas
from ptychostream.ioc.scan.stream import Stream
from ptychostream.storage.bounded_folder import keep_used
from ptychostream.plugins.engines.cache import default_cache
from ptychostream.plugins.engines.plain import is_plain, plain_contract
from ptychostream.plugins.frame_source import FrameSource
from ptychostream.plugins.inference import Patches
from ptychostream.plugins.mosaic import RunCanvas
from ptychostream.plugins.pipeline import Pipeline
from ptychostream.plugins.trial.order import EngineOrder
from ptychostream.plugins.trial.trial import try_model
from ptychostream.plugins.refining.live import LiveRefinement
from ptychostream.plugins.flow.snapshot import RunFigures, Stitched

_CACHE_BYTES = 4_000_000_000  # of built engines; those that were not used for longest are removed at the start


def assemble(
    settings: IocSettings,
    on_slot: Callable[[], None],
    on_saving: Callable[[], None],
    on_end: Callable[[str], None],
    pipelines: type[Pipeline] = Pipeline,
    collectors: type[Collector] = Collector,
    key: bytes | None = None,
) -> Parts:
    """Make the parts.

    Parameters
    ----------
    settings
        The settings that the IOC starts with.
    on_slot
        Called when the model slot changes.
    on_saving
        Called when the state of the canvases' saving changes, at every saved scan.
    on_end
        Called with a scan's id when a frame's end attribute has ended it.
    pipelines, collectors
        Kinds of the frame source, without and with consumers.
    key
        What pushes and judgements must be signed with; None: nothing.
    """
    positions = PositionSources(settings.positions)
    scans = settings.scan
    pipeline: FrameSource
    slot: ModelSlot | ClusterSlot
    stream: Stream | CollectorStream
    collector: Collector | None = None
    if settings.cluster.consumers:
        pipeline = collector = collectors(settings.cluster, settings.pipeline, scans, settings.prefix, on_end, on_slot)
        slot = _make_cluster_slot(settings, collector, on_slot)
        stream = CollectorStream(collector, settings.input.pv)
        refinement = LiveRefinement(settings.refine, collector.stitched)  # it is given no frames
    else:
        pipeline = local = pipelines(settings.pipeline, positions.current, scans)
        refinement = LiveRefinement(settings.refine, local.stitched, lambda: _refined_folder(saver))
        slot = _make_slot(settings, local, on_slot)
        # An end attribute ends an attribute's scan; PVs and pauses have ends of their own.
        ends = {} if scans.boundary == "attribute" else {"end_attribute": ""}
        local.on_end = on_end
        stream = own = Stream(
            local.submit_all,
            local.reject,
            settings.input.model_copy(update=ends),
            settings.pipeline.waiting_bytes,
        )

        def expect(contract: ModelContract) -> None:
            own.expect(None if is_plain(contract) else contract)
            own.expect_shape(contract)

        local.on_contract = expect
        local.on_patches = _both(slot.canary.note, refinement.note)
    positions.connect(pipeline)
    pipeline.dose_scale, pipeline.scan_dose.automatic = settings.dose_scale, settings.dose_mode == "Auto"
    shown = ShownCanvas(pipeline)
    saver = _make_saver(settings, pipeline, positions, slot.sha_of, on_saving)

    def finished(run: RunFigures, canvas: RunCanvas | None) -> None:
        saver.finished(run, canvas)
        refinement.finished(run.number)

    pipeline.on_finished = finished
    return Parts(
        settings=settings,
        pipeline=pipeline,
        stream=stream,
        slot=slot,
        images=ImageServer(
            settings.prefix,
            shown,
            slot.sha_of,
            settings.phase_rate_hz,
            pipeline.times,
            settings.engine.frame_shape,
            settings.images_port,
            REFINED_IMAGES,
            settings.pipeline.max_canvas_pixels,
        ),
        positions=positions,
        comparison=Comparison(pipeline.stitched, str(settings.ssim_reference or ""), settings.ssim_tolerance),
        shown=shown,
        saver=saver,
        agent=AttachedAgent(settings.agent.timeout_s, on_slot),
        rollback=Rollback(slot, settings.rollback_tolerance),
        verdicts=Verdicts(settings.prefix, key),
        refinement=refinement,
        refined=RefinedImages(
            settings.prefix,
            refinement,
            slot.sha_of,
            lambda: pipeline.snapshot().runs,
            settings.engine.frame_shape,
            settings.pipeline.max_canvas_pixels,
        ),
        collector=collector,
    )


OnPatches = Callable[[ModelContract, Patches], None]


def _both(first: OnPatches, second: OnPatches) -> OnPatches:
    def note(contract: ModelContract, patches: Patches) -> None:
        first(contract, patches)
        second(contract, patches)

    return note


def _refined_folder(saver: CanvasSaver) -> Path | None:
    """Where refined scans are saved: beside the canvases, if those are saved by themselves."""
    return Path(saver.directory) / "refined" if saver.automatic and saver.directory else None


def _make_saver(
    settings: IocSettings,
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

    return CanvasSaver(
        figures_of,
        describe,
        directory=str(settings.save.directory or ""),
        automatic=settings.save.automatic,
        delay_s=settings.save.delay_s,
        queue_bytes=int(settings.save.queue_mb * 1e6),
        on_change=on_change,
    )


def _engine_wish(settings: IocSettings) -> EngineWish:
    return EngineWish(
        name=settings.engine.name,
        precision=settings.engine.precision,
        batch=settings.pipeline.batch,
        backlog_batches=settings.pipeline.backlog_batches,
    )


def _make_cluster_slot(settings: IocSettings, collector: Collector, on_slot: Callable[[], None]) -> ClusterSlot:
    engine = settings.engine
    order = EngineOrder.none(str(engine.cache_dir or default_cache()))

    def try_out(data: bytes, sidecar: bytes | None, path: Path, give_up: threading.Event) -> None:
        try_model(data, sidecar, path, order, engine.trial_bounds, give_up)

    slot = ClusterSlot(
        collector.run_model,
        wish=_engine_wish(settings),
        directory=settings.model.directory,
        max_bytes=settings.model.max_bytes,
        on_change=on_slot,
        try_out=try_out,
    )
    collector.on_reports = slot.hear
    return slot


def _make_slot(settings: IocSettings, pipeline: Pipeline, on_slot: Callable[[], None]) -> ModelSlot:
    engine = settings.engine
    cache = engine.cache_dir or default_cache()
    keep_used(cache, "*.engine", _CACHE_BYTES)
    return ModelSlot(
        EngineMaker(cache, engine.threads, engine.automatic, engine.trial_bounds),
        pipeline.swap_engine,
        plain_contract(settings.engine.frame_shape, settings.engine.pixel_m),
        wish=_engine_wish(settings),
        directory=settings.model.directory,
        max_bytes=settings.model.max_bytes,
        on_change=on_slot,
        canary=Canary(settings.canary_limit, lambda: pipeline.scan_dose.automatic),
    )
