"""The commands' log: a line for each event."""

from __future__ import annotations

import io
import logging

from ptychostream.cli.parts.logs import one_line


def test_an_error_of_the_epics_client_is_one_line() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.addFilter(one_line)
    for name in ("caproto.circ", "ptychostream.ioc"):
        log = logging.Logger(name)
        log.addHandler(handler)
        try:
            raise ValueError("unknown channel 7")
        except ValueError as error:
            log.error("a wrong answer in state %s", "CONNECTED", exc_info=error)
        log.error("no exception")
    theirs, ours = out.getvalue().split("no exception\n")[:2]
    assert theirs == "a wrong answer in state CONNECTED: unknown channel 7\n"
    assert "Traceback" in ours
