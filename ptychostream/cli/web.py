"""`ptychostream web`: a page for browsers that shows IOCs live."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ptychostream.cli.parts.declared_options import help_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ptychostream.config import declared
    from ptychostream.web.settings import WebSettings

    parser.add_argument("iocs", nargs="*", metavar="PREFIX", help="prefix of an IOC (ptycho:NN1:); give several")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file; the options override it")
    parser.add_argument(
        "--cluster", type=Path, metavar="FILE", help="show the IOC of the cluster that this TOML file describes"
    )
    parser.add_argument(
        "--image", action="append", dest="images", metavar="CHANNEL", help="a further PVA image, such as a detector's"
    )
    parser.add_argument(
        "--origin", action="append", dest="origins", metavar="URL", help="another page that may use this server"
    )
    for one in declared(WebSettings):
        if one.setting.flag:
            metavar = one.key.rpartition("_")[2].upper()
            parser.add_argument(one.setting.flag, dest=one.key, metavar=metavar, help=help_of(one))


def run(arguments: argparse.Namespace) -> int:
    import asyncio

    from ptychostream.config import load_settings
    from ptychostream.errors import ConfigError
    from ptychostream.web.settings import WebSettings

    names = [name for name in WebSettings.model_fields if hasattr(arguments, name)]
    given: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    given["iocs"] = [*arguments.iocs, *_of_cluster(arguments.cluster)] or None
    settings = load_settings(WebSettings, arguments.config, given)
    try:
        from ptychostream.web.server import WebServer
    except ModuleNotFoundError as error:
        if error.name not in ("aiohttp", "p4p"):
            raise
        what, remedy = f"{error.name} is not installed", "install the extra: pip install 'ptychostream[web]'"
        raise ConfigError(what, where="ptychostream web", remedy=remedy) from error
    asyncio.run(_serve(WebServer(settings)))
    return 0


def _of_cluster(path: Path | None) -> list[str]:
    """The prefix of a cluster's IOC."""
    if path is None:
        return []
    from ptychostream.cluster.settings import ClusterSettings
    from ptychostream.config import load_settings

    return [load_settings(ClusterSettings, path, {}).prefix]


async def _serve(server: Any) -> None:
    """Serve until SIGINT or SIGTERM; a second one does not wait for an orderly end."""
    import asyncio

    from ptychostream.processes.stopping import stop_on_signals

    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        loop.call_soon_threadsafe(stop.set)

    with stop_on_signals(end):
        await server.start()
        print(f"the page: {server.address}", flush=True)
        await stop.wait()
        await server.stop()
