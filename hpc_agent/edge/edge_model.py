"""Reads which model runs at the edge, and rolls the edge back to the previous one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from p4p.client.thread import Context, Disconnected, RemoteError

from ptychostream.errors import AgentError

_RECORDS = ("ModelSHA_RBV", "ModelVersion_RBV", "PreviousModel_RBV", "ModelMessage_RBV")


@dataclass(frozen=True)
class EdgeModel:
    """The model records of the edge.

    Attributes
    ----------
    sha256, name
        Of the live model; "" for none.
    previous
        Name of the model that a rollback restores; "" for none.
    message
        What the model slot did last, or why it did not.
    """

    sha256: str
    name: str
    previous: str
    message: str


def read_edge_model(prefix: str, timeout_s: float = 5.0, epics: Mapping[str, str] | None = None) -> EdgeModel:
    """The model at the edge of records `prefix`.

    Parameters
    ----------
    epics
        EPICS's variables (`EPICS_PVA_ADDR_LIST` …); None: the environment's.

    Raises
    ------
    AgentError
        The edge does not answer.
    """
    with _context(epics) as context:
        return _read(context, prefix, timeout_s)


def roll_back(prefix: str, timeout_s: float = 600.0, epics: Mapping[str, str] | None = None) -> EdgeModel:
    """Roll the edge back to its previous model, which is live when this returns.

    Parameters
    ----------
    timeout_s
        How long the edge may take to build it.

    Raises
    ------
    AgentError
        There is no previous model, or the edge does not answer, refuses, or cannot build the model.
    """
    deadline = time.monotonic() + timeout_s
    record = f"{prefix}RollbackModel"
    with _context(epics) as context:
        before = _read(context, prefix, min(5.0, timeout_s))
        if not before.previous:
            remedy = "push the model that is wanted: `ptychostream model push`"
            raise AgentError("the edge has no previous model", where=record, remedy=remedy)
        try:
            left_s = max(0.1, deadline - time.monotonic())
            context.put(record, {"value.index": 1}, request="record[block=true]", timeout=left_s)
        except RemoteError as error:
            raise AgentError(f"refused: {error}", where=record, remedy="see the edge's access rules") from error
        except (TimeoutError, Disconnected) as error:
            what = f"no answer within {timeout_s:.0f} s"
            raise AgentError(what, where=record, remedy="see the edge's ModelMessage_RBV and log") from error
        after = _read(context, prefix, 5.0)
    if after.sha256 == before.sha256:
        raise AgentError(f"{before.name} runs on: {after.message}", where=record, remedy="see the edge's log")
    return after


def _context(epics: Mapping[str, str] | None) -> AbstractContextManager[Any]:
    conf = {"conf": dict(epics), "useenv": False} if epics is not None else {}
    context: AbstractContextManager[Any] = Context("pva", nt=False, **conf)
    return context


def _read(context: Any, prefix: str, timeout_s: float) -> EdgeModel:
    names = [f"{prefix}{record}" for record in _RECORDS]
    values = context.get(names, timeout=timeout_s, throw=False)
    for name, value in zip(names, values, strict=True):
        if isinstance(value, Exception):
            remedy = "start the IOC, check the prefix and EPICS_PVA_ADDR_LIST"
            raise AgentError(f"no answer within {timeout_s:.0f} s", where=name, remedy=remedy) from value
    return EdgeModel(*(str(value.value) for value in values))
