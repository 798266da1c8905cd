"""`python -m ptychostream.plugins.trial.trial_child ORDER HEADER`: tries the model that stands in standard input.

Standard output gets one line of JSON: the engine, the time and the memory that it took, or the error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from ptychostream.errors import PtychostreamError
from ptychostream.model.model_file import parse_model
from ptychostream.plugins.engines.checking import check_engine
from ptychostream.plugins.engines.plain import PLAIN
from ptychostream.plugins.trial.order import EngineOrder
from ptychostream.processes.bounded import peak_bytes


def main(order_text: str, header_text: str) -> None:
    order, header = EngineOrder.from_json(order_text), json.loads(header_text)
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a runtime prints must not mix with the result
    given = sys.stdin.buffer.read()
    data = given[: header["model"]]
    sidecar = None if header["sidecar"] is None else given[header["model"] :]
    results.write(json.dumps(_try(order, data, sidecar, Path(header["path"]))))
    results.flush()
    os._exit(0)  # what a runtime does at its end is no part of the trial


def _try(order: EngineOrder, data: bytes, sidecar: bytes | None, path: Path) -> dict[str, object]:
    start = time.monotonic()
    try:
        model = parse_model(data, path, sidecar)
        name = "no engine"
        if order.name:
            engine = order.create(model, model.contract)
            check_engine(engine, model.contract, golden=order.name != PLAIN)
            name = engine.name
    except PtychostreamError as error:
        return {"error": type(error).__name__, "what": error.what, "where": error.where, "remedy": error.remedy}
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the process's outermost: engines raise many kinds
        return {
            "error": "EngineError",
            "what": str(error)[:500] or type(error).__name__,
            "where": str(path),
            "remedy": "try another engine",
        }
    return {"engine": name, "seconds": time.monotonic() - start, "peak_mib": peak_bytes() / (1 << 20)}


if __name__ == "__main__":
    main(*sys.argv[1:])
