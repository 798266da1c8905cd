"""`ptychostream agent`: the HPC agent, which closes the learning loop."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="TOML", help="settings; the flags below override them")
    parser.add_argument("--prefix", help="prefix of the edge's records (default ptycho:NN1:)")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="folder of journal, corpus, models and scans (default agent)"
    )
    scans = parser.add_argument_group("scans")
    scans.add_argument("--complete-pv", metavar="PV", help="PV that shows that a scan is complete")
    scans.add_argument("--complete-edge", metavar="KIND", help="rising (default), falling (a busy record) or counter")
    scans.add_argument("--id-pv", metavar="PV", help="PV of the scan's id")
    scans.add_argument(
        "--file-pv", metavar="PV", help="PV of the scan's file; long names of lsi and lso records as NAME.VAL$"
    )
    scans.add_argument(
        "--energy-pv",
        metavar="PV",
        help="PV of the energy, in keV unless the settings say otherwise (V, kV: electrons)",
    )
    scans.add_argument("--frames-pv", metavar="PV", help="PV of the number of frames in the file")
    scans.add_argument("--files", metavar="PATTERN", help="where files appear, {scan} for the id: finds missed scans")
    scans.add_argument("--record", metavar="CHANNEL", help="record this PVA stream where there is no shared disk")
    scans.add_argument("--recordings", metavar="TEMPLATE", help="files of the recording, with {scan}")
    work = parser.add_argument_group("work")
    work.add_argument("--runner", metavar="KIND", help="local (default) or parsl")
    work.add_argument("--threads", type=int, metavar="N", help="threads of a step (default: all cores but one)")
    work.add_argument(
        "--canvases", type=Path, metavar="DIR", help="folder where the edge saves canvases, for warm starts"
    )
    work.add_argument("--key-file", type=Path, metavar="FILE", help="key that signs what is pushed")
    parser.add_argument("--check", action="store_true", help="check the settings and print them, start nothing")


def run(arguments: argparse.Namespace) -> int:
    from ptychostream.config import load_settings
    from ptychostream.hpc_agent.agent_process import AgentProcess, check_options
    from ptychostream.hpc_agent.settings import AgentSettings
    from ptychostream.processes.stopping import stop_on_signals

    values = {
        "prefix": arguments.prefix,
        "work": arguments.work,
        "watch.complete_pv": arguments.complete_pv,
        "watch.edge": arguments.complete_edge,
        "watch.id_pv": arguments.id_pv,
        "watch.file_pv": arguments.file_pv,
        "watch.energy_pv": arguments.energy_pv,
        "watch.frames_pv": arguments.frames_pv,
        "folder.files": arguments.files,
        "record.channel": arguments.record,
        "collect.recordings": arguments.recordings,
        "runner.kind": arguments.runner,
        "runner.threads": arguments.threads,
        "steps.canvases": arguments.canvases,
        "push.key_file": arguments.key_file,
    }
    settings = load_settings(AgentSettings, arguments.config, values)
    if arguments.check:
        check_options(settings)
        print(settings.model_dump_json(indent=2))
        return 0
    if not arguments.verbose:
        for chatty in ("caproto", "parsl"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
    process = AgentProcess(settings)
    log = logging.getLogger(__name__)
    log.info("the agent of %s works in %s", settings.prefix, settings.work.resolve())
    with stop_on_signals(process.stop):
        process.run()
    log.info("the agent has ended")
    return 0
