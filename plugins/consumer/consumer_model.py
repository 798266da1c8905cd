"""The model of a consumer: tried in a process of its own, loaded, checked, built in another thread, put to use."""

from __future__ import annotations

import threading
from pathlib import Path

from ptychostream.errors import EngineError
from ptychostream.model.checksum import check_sha256
from ptychostream.model.model_file import parse_model, read_model
from ptychostream.model.model_folder import in_folder
from ptychostream.plugins.consumer.consumer_report import EngineReport
from ptychostream.plugins.consumer.consumer_settings import ConsumerSettings
from ptychostream.plugins.engines import Engine
from ptychostream.plugins.engines.cache import default_cache
from ptychostream.plugins.engines.checking import check_engine
from ptychostream.plugins.engines.plain import PLAIN, plain_contract
from ptychostream.plugins.flow.batcher import frames_at_once
from ptychostream.plugins.pipeline import Pipeline
from ptychostream.plugins.swap import await_swap
from ptychostream.plugins.trial.order import EngineOrder
from ptychostream.plugins.trial.trial import try_model


def install(
    pipeline: Pipeline,
    settings: ConsumerSettings,
    path: Path | None,
    sha256: str = "",
    give_up: threading.Event | None = None,
) -> EngineReport:
    """Put a model to use in the pipeline; the engine before it runs until then, and goes on after a failure.

    Parameters
    ----------
    path
        The model file; None for engine None without a model.
    sha256
        Expected checksum of the file; empty: any.
    give_up
        Ends the attempt when set: another model was ordered.

    Raises
    ------
    ModelError, EngineError
        The model or the engine cannot be used, or the attempt was given up; further errors are those of the engine.
    """
    wished, order = settings.engine, _order(settings)
    model = None
    if path is not None:
        named = "copy the model into {}, or name another folder as consumer.model_directory"
        in_folder(path.resolve(), settings.model_directory, named)
        data, sidecar = read_model(path)
        remedy = "let every host see the same file, or copy it to each"
        check_sha256(data, sha256, str(path), "is not the file that the collector means", remedy)
        try_model(data, sidecar, path, order, wished.trial_bounds, give_up)
        model = parse_model(data, path, sidecar, sha256)
    contract = model.contract if model is not None else plain_contract(wished.frame_shape, wished.pixel_m)
    built: list[Engine] = []

    def factory() -> Engine:
        engine = order.create(model, contract)
        try:
            if give_up is not None and give_up.is_set():
                raise EngineError("another model was ordered", where=str(path), remedy="none: that one runs")
            check_engine(engine, contract, golden=wished.name != PLAIN)
        except BaseException:
            engine.close()
            raise
        built.append(engine)
        return engine

    await_swap(pipeline.swap_engine(factory, contract), wished.trial_s, str(path or PLAIN))
    engine = built[0]
    return EngineReport(
        name=engine.name,
        version=engine.version,
        precision=engine.precision,
        device=engine.device,
        batch=min(settings.pipeline.batch, engine.batch),
        model=contract.name,
        sha256=model.sha256 if model is not None else "",
        path=str(path) if path is not None else "",
        pixel_m=contract.object_pixel_m,
        mean_counts=contract.mean_counts or 0.0,
        sigma_factor=contract.sigma.factor if contract.sigma is not None else -1.0,
        sigma_floor_rad=contract.sigma.floor_rad if contract.sigma is not None else 0.0,
    )


def _order(settings: ConsumerSettings) -> EngineOrder:
    wished, batch = settings.engine, settings.pipeline.batch
    return EngineOrder(
        name=wished.automatic if wished.name == "Auto" else wished.name,
        batch=frames_at_once(batch, settings.pipeline.backlog_batches),
        chunk=batch,
        precision=wished.precision,
        cache_dir=str(wished.cache_dir or default_cache()),
        threads=wished.threads,
    )
