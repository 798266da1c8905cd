"""The actions of `ptychostream model` that work on the model store and the edge."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychostream.cli.parts import finite

if TYPE_CHECKING:
    from ptychostream.hpc_agent.edge.edge_model import EdgeModel
    from ptychostream.hpc_agent.edge.push import PushSettings
    from ptychostream.hpc_agent.models.model_store import ModelStore
    from ptychostream.hpc_agent.models.stored_model import StoredModel
    from ptychostream.hpc_agent.settings import AgentSettings

CONFIG = Path("agent.toml")
SHORT = 12
"""Number of characters of a sha256 that are shown."""


def add_store_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that say where the store is."""
    parser.add_argument("--store", type=Path, metavar="DIR", help="the model store (default: the agent's)")
    parser.add_argument("--config", type=Path, metavar="TOML", help=f"the agent's settings (default {CONFIG})")


def add_actions(actions: Any) -> None:
    """Add the actions `list`, `push`, `rollback`, `pin`, `unpin` and `gc` of `ptychostream model`."""
    listing = actions.add_parser("list", help="list the models of the store, newest last")
    push = actions.add_parser("push", help="send a model to the edge, and wait until it is live")
    push.add_argument("model", help="the beginning of a sha256 of the store, or an ONNX file")
    push.add_argument("--key-file", type=Path, metavar="FILE", help="the key that signs it (default: the agent's)")
    rollback = actions.add_parser("rollback", help="roll the edge back to its previous model, and wait")
    pins = [
        actions.add_parser("pin", help="exclude a model from garbage collection"),
        actions.add_parser("unpin", help="include a model in garbage collection again"),
    ]
    for pin in pins:
        pin.add_argument("model", help="the beginning of its sha256")
    gc = actions.add_parser("gc", help="remove old models; without --yes, say which")
    gc.add_argument("--keep", type=int, default=20, metavar="N", help="the newest to keep (default %(default)s)")
    gc.add_argument("--yes", action="store_true", help="remove them")
    gc.add_argument("--offline", action="store_true", help="do not ask the edge which models it needs")
    for parser in (listing, push, rollback, gc):
        parser.add_argument("--prefix", metavar="P", help="prefix of the edge's records (default: the agent's)")
    for parser in (push, rollback):
        parser.add_argument(
            "--timeout", dest="timeout_s", type=finite, metavar="S", help="how long the edge may take to build it"
        )
    for parser in (listing, push, rollback, gc):
        parser.add_argument("--json", action="store_true", help="print JSON")
    for parser in (listing, push, rollback, gc, *pins):
        add_store_arguments(parser)


def list_models(arguments: argparse.Namespace) -> int:
    """`model list`."""
    from ptychostream.errors import AgentError

    store = open_store(arguments)
    live: EdgeModel | None = None
    if arguments.prefix or _agent(arguments):
        from ptychostream.hpc_agent.edge.edge_model import read_edge_model

        try:
            live = read_edge_model(_edge(arguments).prefix, timeout_s=2.0)
        except AgentError as error:
            print(f"which one is live is not known: {error}", file=sys.stderr)
    models, damaged = store.models(), store.damaged()
    rows = [describe(model) | {"live": None if live is None else model.sha256 == live.sha256} for model in models]
    if arguments.json:
        print(json.dumps({"models": rows, "damaged": [[str(path), why] for path, why in damaged]}, indent=2))
        return 0
    _table(rows)
    for row in rows:
        if mark := row["rolled_back"]:
            print(f"{row['sha256'][:SHORT]} was rolled back, {mark['at'][:16].replace('T', ' ')}: {mark['reason']}")
    for _, why in damaged:
        print(why, file=sys.stderr)
    return 0


def push_model(arguments: argparse.Namespace) -> int:
    """`model push`."""
    from ptychostream.hpc_agent.edge.push import push

    path = find(arguments.model, arguments)[0]
    settings = _edge(arguments)
    pushed = push(settings, path)
    found = {"sha256": pushed.sha256, "name": pushed.name, "seconds": pushed.seconds, "message": pushed.message}
    said = f"{pushed.name} ({pushed.sha256[:SHORT]}) is live at {settings.prefix} after {pushed.seconds:.1f} s"
    print(json.dumps(found, indent=2) if arguments.json else said)
    return 0


def roll_back_model(arguments: argparse.Namespace) -> int:
    """`model rollback`."""
    from ptychostream.hpc_agent.edge.edge_model import roll_back

    settings = _edge(arguments)
    edge = roll_back(settings.prefix, settings.timeout_s)
    found = {"sha256": edge.sha256, "name": edge.name, "previous": edge.previous, "message": edge.message}
    said = (
        f"{edge.name} ({edge.sha256[:SHORT]}) is live at {settings.prefix} again; {edge.previous} can be gone back to"
    )
    print(json.dumps(found, indent=2) if arguments.json else said)
    return 0


def pin_model(arguments: argparse.Namespace) -> int:
    """`model pin` and `model unpin`."""
    open_store(arguments).pin(arguments.model, arguments.action == "pin")
    return 0


def collect_garbage(arguments: argparse.Namespace) -> int:
    """`model gc`."""
    from ptychostream.errors import ConfigError

    if arguments.keep < 1:
        raise ConfigError(f"--keep {arguments.keep}", where="command line", remedy="keep one or more")
    store = open_store(arguments)
    protect = set() if arguments.offline else _needed(store, _edge(arguments).prefix)
    sweep = store.gc(arguments.keep, protect, dry_run=not arguments.yes)
    if arguments.json:
        found = {
            "removed": [model.sha256 for model in sweep.removed],
            "kept": [model.sha256 for model in sweep.kept],
            "leftovers": [str(path) for path in sweep.leftovers],
            "bytes": sweep.size,
            "done": arguments.yes,
        }
        print(json.dumps(found, indent=2))
        return 0
    _table([describe(model) | {"live": None} for model in sweep.removed])
    total = f"{len(sweep.removed)} models and {len(sweep.leftovers)} leftovers, {sweep.size / 1e6:.1f} MB"
    print(f"removed {total}" if arguments.yes else f"would remove {total}: give --yes to do it")
    return 0


def open_store(arguments: argparse.Namespace) -> ModelStore:
    """The store that the arguments or the agent's settings name.

    Raises
    ------
    ConfigError
        No store is named, or it does not exist.
    """
    from ptychostream.errors import ConfigError
    from ptychostream.hpc_agent.models.model_store import ModelStore

    agent = None if arguments.store else _agent(arguments)
    folder = arguments.store or (agent.work / "models" if agent else None)
    if folder is None:
        remedy = "give --store, or --config with the agent's settings"
        raise ConfigError("which model store?", where="command line", remedy=remedy)
    if not folder.is_dir():
        raise ConfigError("there is no such folder", where=str(folder), remedy="give --store an existing folder")
    return ModelStore(folder)


def find(name: str, arguments: argparse.Namespace) -> tuple[Path, StoredModel | None]:
    """The ONNX file for `name`, a path or the beginning of a sha256, and in the second case its stored model."""
    path = Path(name)
    if path.suffix or path.is_file():
        return path, None
    stored = open_store(arguments).get(name)
    return stored.path, stored


def describe_lineage(model: StoredModel, arguments: argparse.Namespace) -> dict[str, Any]:
    """The store's data of a model, for `model inspect`."""
    lineage = open_store(arguments).lineage(model.sha256)
    return {
        "added": model.added.isoformat(),
        "pinned": model.pinned,
        "rolled_back": _mark(model),
        "checkpoint": model.checkpoint is not None,
        "metrics": dict(model.metrics),
        "lineage": [f"{name[:SHORT]} {ancestor.contract.name if ancestor else '(gone)'}" for name, ancestor in lineage],
    }


def describe(model: StoredModel) -> dict[str, Any]:
    """A stored model for `--json` and the table."""
    training = model.contract.training
    return {
        "sha256": model.sha256,
        "name": model.contract.name,
        "network": model.contract.network,
        "added": model.added.isoformat(),
        "pairs": training.frames,
        "validation_loss": training.validation_loss,
        "ssim": training.ssim if training.ssim is not None else model.metrics.get("ssim"),
        "parents": list(model.parents),
        "pinned": model.pinned,
        "rolled_back": _mark(model),
        "path": str(model.path),
        "metrics": dict(model.metrics),
    }


def _mark(model: StoredModel) -> dict[str, str] | None:
    mark = model.rolled_back
    return None if mark is None else {"at": mark.at.isoformat(), "reason": mark.reason}


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    heads = ("sha256", "name", "added, UTC", "pairs", "loss", "SSIM", "from", "")
    table = Table(*(Column(head, no_wrap=head not in ("name", "from")) for head in heads), box=None, pad_edge=False)
    for row in rows:
        marks = " ".join(mark.replace("_", " ") for mark in ("live", "pinned", "rolled_back") if row[mark])
        figures = [f"{row['pairs']:,}", _figure(row["validation_loss"], ".4f"), _figure(row["ssim"], ".3f")]
        parents = " ".join(parent[:SHORT] for parent in row["parents"])
        when = row["added"][:16].replace("T", " ")
        table.add_row(row["sha256"][:SHORT], row["name"], when, *figures, parents, marks)
    Console().print(table)


def _figure(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else ""


def _needed(store: ModelStore, prefix: str) -> set[str]:
    """sha256 of the edge's live model and of its previous one, which the edge names."""
    from ptychostream.hpc_agent.edge.edge_model import read_edge_model

    edge = read_edge_model(prefix)
    return {edge.sha256} | {model.sha256 for model in store.models() if model.contract.name == edge.previous}


def _edge(arguments: argparse.Namespace) -> PushSettings:
    """How models are sent to the edge: the agent's settings, updated by the arguments.

    Raises
    ------
    ConfigError
        No edge is named, or the settings are wrong.
    """
    from ptychostream.config import load_settings
    from ptychostream.errors import ConfigError
    from ptychostream.hpc_agent.edge.push import PushSettings

    agent = _agent(arguments)
    known = agent.edge.model_dump() if agent else {}
    given = {name: getattr(arguments, name, None) for name in ("prefix", "key_file", "timeout_s")}
    values = known | {name: value for name, value in given.items() if value is not None}
    if "prefix" not in values:
        remedy = "give --prefix, or --config with the agent's settings"
        raise ConfigError("which edge?", where="command line", remedy=remedy)
    return load_settings(PushSettings, None, values)


def _agent(arguments: argparse.Namespace) -> AgentSettings | None:
    """The agent's settings; None: there is no file. Raises ConfigError."""
    from ptychostream.config import load_settings

    config = arguments.config or (CONFIG if CONFIG.is_file() else None)
    if config is None:
        return None
    from ptychostream.hpc_agent.settings import AgentSettings

    return load_settings(AgentSettings, config, {})
