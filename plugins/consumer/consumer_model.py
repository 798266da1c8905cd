"""The model of a consumer: loaded, checked, built in another thread, and put to use."""

from __future__ import annotations

from pathlib import Path

from ptychostream.errors import EngineError, ModelError
from ptychostream.model.contract import ModelContract
from ptychostream.model.model_file import ModelFile, load_model
from ptychostream.plugins.consumer.consumer_report import EngineReport
from ptychostream.plugins.consumer.consumer_settings import ConsumerSettings
from ptychostream.plugins.engines import Engine, create_engine
from ptychostream.plugins.engines.cache import default_cache
from ptychostream.plugins.engines.checking import check_engine
from ptychostream.plugins.engines.plain import PLAIN, PlainEngine, plain_contract
from ptychostream.plugins.flow.batcher import frames_at_once
from ptychostream.plugins.pipeline import Pipeline


def install(pipeline: Pipeline, settings: ConsumerSettings, path: Path | None, sha256: str = "") -> EngineReport:
    """Put a model to use in the pipeline; the engine before it runs until then, and goes on after a failure.

    Parameters
    ----------
    path
        The model file; None for engine None without a model.
    sha256
        Expected checksum of the file; empty: any.

    Raises
    ------
    ModelError, EngineError
        The model or the engine cannot be used; further errors are those of the engine.
    """
    model = load_model(path) if path is not None else None
    if model is not None and sha256 and model.sha256 != sha256:
        remedy = "let every host see the same file, or copy it to each"
        raise ModelError("is not the file that the collector means", where=str(path), remedy=remedy)
    wished = settings.engine
    contract = model.contract if model is not None else plain_contract(wished.frame_shape, wished.pixel_m)
    built: list[Engine] = []

    def factory() -> Engine:
        engine = _create(settings, model, contract)
        try:
            check_engine(engine, contract, golden=wished.name != PLAIN)
        except BaseException:
            engine.close()
            raise
        built.append(engine)
        return engine

    pipeline.swap_engine(factory, contract).result()
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
    )


def _create(settings: ConsumerSettings, model: ModelFile | None, contract: ModelContract) -> Engine:
    wished, batch = settings.engine, settings.pipeline.batch
    at_once = frames_at_once(batch, settings.pipeline.backlog_batches)
    if wished.name == PLAIN:
        if contract.input_shape != contract.output_shape:
            what = f"the model turns {contract.input_shape} into {contract.output_shape}"
            raise EngineError(what, where="engine None", remedy="choose another engine")
        return PlainEngine(contract.input_shape, at_once)
    return create_engine(
        wished.automatic if wished.name == "Auto" else wished.name,
        model,
        batch=at_once,
        chunk=batch,
        precision=wished.precision,
        cache_dir=wished.cache_dir or default_cache(),
        threads=wished.threads,
    )
