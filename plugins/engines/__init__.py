"""The inference engines, which have one interface."""

from ptychostream.plugins.engines.base import Engine, EngineStatus
from ptychostream.plugins.engines.null import NullEngine
from ptychostream.plugins.engines.probing import probe_engines
from ptychostream.plugins.engines.registry import create_engine, engine_names

__all__ = ["Engine", "EngineStatus", "NullEngine", "create_engine", "engine_names", "probe_engines"]
