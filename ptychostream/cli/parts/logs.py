"""What the commands log, and how."""

from __future__ import annotations

import logging


def configure(verbose: bool) -> None:
    """Log to stderr: at debug level with every traceback if `verbose`, else without those of the EPICS client."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    if not verbose:
        for handler in logging.getLogger().handlers:
            handler.addFilter(one_line)


def one_line(record: logging.LogRecord) -> bool:
    """Put the error that caproto logs with a record into the record's line, and leave its traceback out.

    caproto logs a wrong answer of a server with the traceback of its own code, closes the connection and makes another.
    """
    if record.name.startswith("caproto") and record.exc_info and record.exc_info[1] is not None:
        record.msg, record.args = f"{record.getMessage()}: {record.exc_info[1]}", ()
        record.exc_info = record.exc_text = None
    return True
