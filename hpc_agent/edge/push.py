"""Pushes a model to the edge over PV Access. The edge checks and builds it; it is live when the call returns."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from p4p.client.thread import Context, Disconnected, RemoteError
from p4p.nt import NTURI
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import AgentError
from ptychostream.model.model_file import MAX_BYTES, load_model
from ptychostream.model.model_push import FAILED, QUERY, REFUSED, push_channel, read_key, signature

_log = logging.getLogger(__name__)
_TYPE = NTURI(list(QUERY))


class PushRefusedError(AgentError):
    """The edge has checked the model and refuses it; it would refuse the same model again."""


class PushSettings(Settings):
    """How models go to the edge."""

    prefix: str = "ptycho:NN1:"
    """Prefix of the edge's records."""
    key_file: Path | None = None
    """File with the key that the edge has in model.key_file; none: pushes are not signed."""
    connect_s: float = Field(5.0, gt=0)
    """How long to search for the edge."""
    timeout_s: float = Field(600.0, gt=0)
    """How long the edge may take to check and build the model."""

    def key(self) -> bytes | None:
        """The key; None where nothing is signed. Raises ConfigError."""
        return read_key(self.key_file, "key_file")


@dataclass(frozen=True)
class Pushed:
    """A model that is live at the edge.

    Attributes
    ----------
    sha256, name
        Of the model; its contract's name.
    message
        The edge's answer.
    seconds
        From the first byte until the model is live.
    """

    sha256: str
    name: str
    message: str
    seconds: float


def push(settings: PushSettings, model_path: str | Path, epics: Mapping[str, str] | None = None) -> Pushed:
    """Send the model at `model_path` to the edge; it is live there when this returns.

    A model that already runs there is not built again.

    Parameters
    ----------
    settings
        Which edge, and the key.
    model_path
        The ONNX file with its contract inside.
    epics
        EPICS's variables (`EPICS_PVA_ADDR_LIST` …); None: the environment's.

    Raises
    ------
    ModelError
        The file is no model.
    ConfigError
        The key cannot be read.
    PushRefusedError
        The edge refuses the model because of access, key, size, contract, its checks or its canary.
    AgentError
        The edge does not answer, or the push failed this time; try again.
    """
    model = load_model(model_path, max_bytes=MAX_BYTES, sidecar=False)
    key = settings.key()
    started = time.monotonic()
    conf = {"conf": dict(epics), "useenv": False} if epics is not None else {}
    with Context("pva", **conf) as context:
        edge = _Edge(context, settings)
        asked = edge.call(b"", settings.connect_s, sha256=model.sha256, name=model.contract.name)
        _check(asked, len(model.data), model.contract.version, key, edge.channel)
        arguments = {"sha256": model.sha256, "name": model.contract.name, "nonce": asked.nonce}
        if key is not None:
            arguments["hmac"] = signature(key, edge.channel, asked.nonce, model.sha256, model.contract.name)
        answer = edge.send(model.data, int(getattr(asked, "partBytes", 0)), **arguments)
    if answer.sha256 != model.sha256:
        what = f"the edge took the model and runs {str(answer.sha256)[:12] or 'none'} now"
        raise AgentError(what, where=edge.channel, remedy="somebody changed it at once; push again if this is wanted")
    seconds = time.monotonic() - started
    _log.info("model %s (%s) is live after %.2f s: %s", model.contract.name, model.sha256[:12], seconds, answer.value)
    return Pushed(model.sha256, model.contract.name, str(answer.value), seconds)


def _check(asked: Any, size: int, version: int, key: bytes | None, channel: str) -> None:
    """Compare the model with the edge's limits before it is sent."""
    if size > asked.maxBytes:
        remedy = "raise model.max_bytes at the edge, or train a smaller network"
        raise PushRefusedError(f"{size:,} bytes, the edge takes {asked.maxBytes:,}", where=channel, remedy=remedy)
    if version > asked.contractVersion:
        what = f"the model has contract version {version}, the edge reads {asked.contractVersion} and older"
        raise PushRefusedError(what, where=channel, remedy="update ptychostream at the edge")
    if asked.keyNeeded and key is None:
        remedy = "give the agent the key that the edge has in model.key_file, as key_file"
        raise PushRefusedError("the edge takes signed models only", where=channel, remedy=remedy)


class _Edge:
    """Calls the edge's channel; its errors become AgentErrors."""

    def __init__(self, context: Context, settings: PushSettings) -> None:
        self.channel = push_channel(settings.prefix)
        self._context = context
        self._settings = settings

    def send(self, model: bytes, part_bytes: int, **arguments: str) -> Any:
        """Send the model in parts of at most `part_bytes`; 0: whole, to an edge that takes no parts."""
        if not part_bytes:
            return self.call(model, self._settings.timeout_s, **arguments)
        for offset in range(0, len(model), part_bytes):
            part = model[offset : offset + part_bytes]
            answer = self.call(part, self._settings.timeout_s, size=len(model), offset=offset, **arguments)
        return answer

    def call(self, model: bytes, timeout_s: float, **arguments: str | int) -> Any:
        data = np.frombuffer(model, np.uint8)
        request = _TYPE.wrap(self.channel, kws={"model": data, **arguments})
        try:
            return self._context.rpc(self.channel, request, timeout=timeout_s)
        except RemoteError as error:
            raise _error(str(error), self.channel) from error
        except (TimeoutError, Disconnected) as error:
            if model:
                what = f"no answer within {timeout_s:.0f} s"
                remedy = "see the edge's ModelState_RBV and log, or raise timeout_s"
            else:
                what = f"the edge does not answer within {timeout_s:.0f} s"
                remedy = "start the IOC, check the prefix and EPICS_PVA_ADDR_LIST"
            raise AgentError(what, where=self.channel, remedy=remedy) from error


def _error(text: str, where: str) -> AgentError:
    for word, kind in ((REFUSED, PushRefusedError), (FAILED, AgentError)):
        if text.startswith(word):
            return kind(text[len(word) :], where=where)
    return AgentError(text, where=where, remedy="check that the prefix is an edge's of ptychostream, and its version")
