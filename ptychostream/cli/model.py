"""`ptychostream model`: the model store, the models at the edge, and the contract of a model file."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ptychostream.cli.parts import model_adopt, model_store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    inspect = actions.add_parser("inspect", help="print a model's contract, sha256 and sizes")
    inspect.add_argument("model", help="an ONNX file, or the beginning of a sha256 of the store")
    inspect.add_argument("--check", action="store_true", help="run the golden pair through an engine")
    inspect.add_argument("--engine", default="Auto", metavar="NAME", help="for --check (default %(default)s)")
    inspect.add_argument("--precision", default="auto", metavar="P", help="for --check (default %(default)s)")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    model_store.add_store_arguments(inspect)
    model_store.add_actions(actions)
    model_adopt.add_adopt(actions)


def run(arguments: argparse.Namespace) -> int:
    actions = {
        "inspect": _inspect,
        "adopt": model_adopt.adopt_model,
        "list": model_store.list_models,
        "push": model_store.push_model,
        "rollback": model_store.roll_back_model,
        "pin": model_store.pin_model,
        "unpin": model_store.pin_model,
        "gc": model_store.collect_garbage,
    }
    return actions[arguments.action](arguments)


def _inspect(arguments: argparse.Namespace) -> int:
    from ptychostream.model.model_file import load_model
    from ptychostream.model.preprocessing import bad_pixels

    path, stored = model_store.find(arguments.model, arguments)
    model = load_model(path)
    contract = model.contract
    found: dict[str, Any] = {
        "path": str(model.path),
        "sha256": model.sha256,
        "bytes": len(model.data),
        "opset": model.opset,
        "inputs": list(model.inputs),
        "fixed_batch": model.fixed_batch,
        "contract": contract.model_dump(exclude={"golden", "patch_weight", "probe", "preprocessing"}),
        "preprocessing": contract.preprocessing.model_dump(exclude={"bad_pixels"}),
        "bad_pixels": bad_pixels(contract.preprocessing),
        "patch_weight": "probe" if contract.patch_weight else "even",
        "probe": list(contract.probe.shape) if contract.probe else None,
        "golden_frames": contract.golden.counts.shape[0] if contract.golden else 0,
    }
    if stored is not None:
        found["store"] = model_store.describe_lineage(stored, arguments)
    if arguments.check:
        found["check"] = _check(model, arguments)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    for key, value in _flat(found):
        print(f"{key:<40} {value}")
    return 0


def _check(model: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    from ptychostream.errors import ModelError
    from ptychostream.model.model_file import check_golden
    from ptychostream.plugins.engines import create_engine

    golden = model.contract.golden
    if golden is None:
        remedy = "export it with this program, or leave --check out"
        raise ModelError("the contract has no golden pair to check", where=str(model.path), remedy=remedy)
    engine = create_engine(arguments.engine, model, precision=arguments.precision)
    try:
        rms = check_golden(model.contract, engine.infer)
    finally:
        engine.close()
    return {"engine": engine.name, "precision": engine.precision, "rms_rad": rms, "tolerance_rad": golden.tolerance}


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        elif value not in (None, "", []):
            rows.append((prefix + key, str(value)))
    return rows
