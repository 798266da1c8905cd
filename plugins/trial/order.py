"""What engine is to be built for a model: the arguments of `create_engine` as one value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from ptychostream.errors import EngineError
from ptychostream.model.contract import ModelContract
from ptychostream.model.model_file import ModelFile
from ptychostream.plugins.engines.base import Engine
from ptychostream.plugins.engines.plain import PLAIN, PlainEngine
from ptychostream.plugins.engines.registry import create_engine


@dataclass(frozen=True)
class EngineOrder:
    """See `ptychostream.plugins.engines.create_engine`. The name "None" means the engine without a network.

    With an empty name no engine is built: a trial then checks the file alone.
    """

    name: str
    batch: int
    chunk: int
    precision: str
    cache_dir: str
    threads: int | None = None

    def create(self, model: ModelFile | None, contract: ModelContract) -> Engine:
        """Build the engine. Raises EngineError."""
        if self.name == PLAIN:
            if contract.input_shape != contract.output_shape:
                raise EngineError(
                    f"the model turns {contract.input_shape} into {contract.output_shape}",
                    where="engine None",
                    remedy="engine None passes patterns on: load a model with equal shapes, or choose another engine",
                )
            return PlainEngine(contract.input_shape, self.batch)
        if model is None:
            raise EngineError("no model", where=f"engine {self.name}", remedy="load a model first")
        return create_engine(
            self.name,
            model,
            batch=self.batch,
            chunk=self.chunk,
            precision=self.precision,
            cache_dir=self.cache_dir,
            threads=self.threads,
        )

    def to_json(self) -> str:
        """As text, for a child process."""
        return json.dumps(asdict(self))

    @classmethod
    def none(cls, cache_dir: str) -> EngineOrder:
        """The order to check the file alone."""
        return cls("", 1, 1, "auto", cache_dir)

    @classmethod
    def from_json(cls, text: str) -> EngineOrder:
        """From the text of `to_json`."""
        return cls(**json.loads(text))
