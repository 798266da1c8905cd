"""`ptychostream datasets`: real scans, listed and fetched."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    cache = argparse.ArgumentParser(add_help=False)
    cache.add_argument("--cache", type=Path, metavar="DIR", help="folder of scan files (default: the user's cache)")
    listing = actions.add_parser("list", parents=[cache], help="list the known scans, their origin and licence")
    listing.add_argument("--json", action="store_true", help="print JSON")
    fetching = actions.add_parser("fetch", parents=[cache], help="fetch a scan and print the path of its file")
    fetching.add_argument("name", help="a name from `datasets list`")
    fetching.add_argument(
        "--from", dest="archive", type=Path, metavar="FILE", help="its archive or folder, fetched by other means"
    )


def run(arguments: argparse.Namespace) -> int:
    return _list(arguments) if arguments.action == "list" else _fetch(arguments)


def _fetch(arguments: argparse.Namespace) -> int:
    from ptychostream.datasets.fetching import fetch

    print(fetch(arguments.name, arguments.cache, archive=arguments.archive))
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from ptychostream.datasets.fetching import DATASETS, cached_path, is_cached

    rows = [
        {
            "name": dataset.name,
            "title": dataset.title,
            "licence": dataset.licence,
            "source": dataset.source,
            "path": str(cached_path(dataset.name, arguments.cache)),
            "cached": is_cached(dataset.name, arguments.cache),
        }
        for dataset in DATASETS.values()
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    from rich.console import Console
    from rich.table import Table

    for row in rows:
        table = Table(show_header=False, title=str(row["name"]), title_justify="left")
        for key in ("title", "licence", "source"):
            table.add_row(key, str(row[key]))
        missing = f"not here: ptychostream datasets fetch {row['name']}"
        table.add_row("file", str(row["path"]) if row["cached"] else missing)
        Console().print(table)
    return 0
