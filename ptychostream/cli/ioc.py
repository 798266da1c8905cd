"""`ptychostream ioc`: the soft IOC beside the detector. Its options are those that the settings declare."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ptychostream.cli.parts.declared_options import help_of

if TYPE_CHECKING:
    from ptychostream.config import Declared
    from ptychostream.ioc.config.settings import IocSettings


def add_arguments(parser: argparse.ArgumentParser, kind: type[IocSettings] | None = None) -> None:
    """Add the options of `kind`, the settings of `ptychostream ioc` by default."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--config", type=Path, metavar="FILE", help="TOML file; the options override it")
    source.add_argument(
        "--cluster", type=Path, metavar="FILE", help="be the collector of the cluster that this TOML file describes"
    )
    for one in _options(kind):
        metavar = one.key.rpartition(".")[2].upper()
        parser.add_argument(one.setting.flag, dest=one.key, metavar=metavar, help=help_of(one))


def overrides(arguments: argparse.Namespace, kind: type[IocSettings] | None = None) -> dict[str, object]:
    """What the command line gave, by dotted key; choices in any case, shapes as HxW."""
    found: dict[str, object] = {}
    for one in _options(kind):
        value = getattr(arguments, one.key)
        if value is None:
            continue
        if isinstance(one.field.default, tuple):
            value = value.lower().split("x")
        found[one.key] = next((choice for choice in one.choices if str(choice).lower() == str(value).lower()), value)
    return found


def run(arguments: argparse.Namespace, kind: type[IocSettings] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    from ptychostream.config import load_settings
    from ptychostream.ioc.app import run as serve
    from ptychostream.ioc.config.settings import IocSettings

    kind, given = kind or IocSettings, overrides(arguments, kind)
    if arguments.cluster is not None:
        from ptychostream.cluster.settings import ClusterSettings, dotted

        values = dotted(load_settings(ClusterSettings, arguments.cluster, {}).ioc_values())
        return serve(load_settings(kind, None, {**values, **given}), given.keys())
    return serve(load_settings(kind, arguments.config, given), given.keys())


def _options(kind: type[IocSettings] | None) -> list[Declared]:
    from ptychostream.config import declared
    from ptychostream.ioc.config.settings import IocSettings

    return [one for one in declared(kind or IocSettings) if one.setting.flag]
