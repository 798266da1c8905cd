"""Models pushed over PV Access: a remote procedure call that takes the model and answers when it is live.

The channel `Model:Load` is served by p4p, beside QSRV and the images. It obeys the rule of the group MODEL in the
records' access security file. The user's name is what the client says: neither PV Access nor Channel Access
proves it. Where others share the network, give the edge and the agent a key: every push is then signed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from p4p import Type, Value
from p4p.server import StaticProvider
from p4p.server.raw import SharedPV

from ptychostream.model.contract import CONTRACT_VERSION
from ptychostream.errors import ModelError, PtychostreamError
from ptychostream.ioc.model.model_rpc_checks import Nonces, PushRequest, check_push
from ptychostream.ioc.model.model_rpc_folder import PushedModels
from ptychostream.model.model_push import FAILED, QUERY, REFUSED, REPLY, push_channel

log = logging.getLogger(__name__)

ACCESS_GROUP = "MODEL"
_WAITING = 4  # pushes that may wait for one that is built; each holds its model in memory

MayWrite = Callable[[str, str, str], bool]
"""(access security group, user, host) → whether that user may write there."""


class Slot(Protocol):
    """What a push needs of the model slot."""

    @property
    def live(self) -> Any: ...

    @property
    def previous(self) -> Any: ...

    def load(self, path: Any, data: bytes, sha256: str) -> None: ...

    @property
    def message(self) -> str: ...


class ModelRpc:
    """Takes pushed models to the model slot, one after the other.

    Parameters
    ----------
    prefix
        Of the channel's name.
    slot
        Loads the models.
    folder
        Keeps their files.
    may_write
        Access security.
    max_bytes
        Larger models are refused.
    key
        Pushes must be signed with it; None: no signature is asked for.
    after
        Called after every push that reached the slot.
    """

    def __init__(
        self,
        prefix: str,
        slot: Slot,
        folder: PushedModels,
        *,
        may_write: MayWrite,
        max_bytes: int,
        key: bytes | None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        self._channel = push_channel(prefix)
        self._slot = slot
        self._folder = folder
        self._may_write = may_write
        self._max_bytes = max_bytes
        self._key = key
        self._after = after
        self._nonces = Nonces()
        self._reply = Type(list(REPLY))
        self._places = threading.BoundedSemaphore(_WAITING)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model push")
        self._stopping = threading.Event()
        self._pv: SharedPV | None = None

    def open(self) -> StaticProvider:
        """Open the channel; a server is to serve the provider."""
        self._pv = SharedPV(handler=self, initial=self._answer("push models here"))  # the server holds it weakly
        provider = StaticProvider("model push")
        provider.add(self._channel, self._pv)
        if self._key is None:
            log.info("%s takes models that are not signed; model.key_file asks for a signature", self._channel)
        return provider

    def stop(self) -> None:
        """Take no more pushes. Those that wait are answered with an error; one in progress is not waited for."""
        self._stopping.set()
        self._worker.shutdown(wait=False)

    # In p4p's threads: nothing here may take long

    def rpc(self, _pv: SharedPV, op: Any) -> None:
        """A call has come."""
        try:
            request = self._allowed(op)
            if self._stopping.is_set():
                op.done(error=f"{FAILED}the IOC is ending (push again when it runs)")
            elif not request.model:
                op.done(self._answer("ask", nonce=self._nonces.issue(time.monotonic())))
            elif not self._places.acquire(blocking=False):
                op.done(error=f"{FAILED}{_WAITING} pushes wait already (push again later)")
            else:
                self._worker.submit(self._serve, request, op)
        except ModelError as error:
            op.done(error=f"{REFUSED}{error}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            names = ", ".join(name for name, _ in QUERY)
            op.done(error=f"{REFUSED}not a push: {error} (send an NTURI whose query has {names})")

    def _allowed(self, op: Any) -> PushRequest:
        peer = op.peer()
        host = peer.rpartition(":")[0] or peer
        users = [op.account(), *(f"role/{role}" for role in op.roles())]
        if not any(self._may_write(ACCESS_GROUP, user, host) for user in users):
            log.warning("a push by %s@%s: not allowed by the access security file", users[0], host)
            remedy = "name the user in access.agents at the edge, or in the group MODEL of its access security file"
            raise ModelError(f"{users[0]}@{host} may not load models", where="access security", remedy=remedy)
        query = op.value()["query"]
        texts = {name: str(query.get(name) or "") for name in ("sha256", "name", "nonce", "hmac")}
        model = query.get("model")
        return PushRequest(model=b"" if model is None else bytes(model), user=users[0], host=host, **texts)

    # In the worker

    def _serve(self, request: PushRequest, op: Any) -> None:
        try:
            message = self._push(request)
        except ModelError as error:
            log.warning("%s is refused: %s", request, error)
            op.done(error=f"{REFUSED}{error}")
        except (PtychostreamError, OSError) as error:
            log.warning("%s failed: %s", request, error)
            op.done(error=f"{FAILED}{error}")
        except Exception as error:  # the thread's outermost; the caller must get an answer
            log.exception("%s failed", request)
            op.done(error=f"{FAILED}{error}")
        else:
            op.done(self._answer(message))
        finally:
            self._places.release()

    def _push(self, request: PushRequest) -> str:
        if self._stopping.is_set():
            raise OSError("the IOC is ending (push again when it runs)")
        check_push(
            request,
            channel=self._channel,
            max_bytes=self._max_bytes,
            key=self._key,
            nonces=self._nonces,
            now_s=time.monotonic(),
        )
        if request.sha256.lower() == self._live_sha():
            return "runs already"
        path, new = self._folder.stage(request.model, request.sha256)
        log.info("%s: %d bytes", request, len(request.model))
        try:
            self._slot.load(path, request.model, request.sha256.lower())
        except BaseException:
            if new:
                path.unlink(missing_ok=True)
            raise
        finally:
            self._after()
        previous = self._slot.previous
        self._folder.tidy({self._live_sha(), previous.sha256 if previous is not None else ""})
        return str(self._slot.message)

    def _live_sha(self) -> str:
        live = self._slot.live
        return live.sha256 if live is not None else ""

    def _answer(self, text: str, nonce: str = "") -> Value:
        return Value(
            self._reply,
            {
                "value": text,
                "sha256": self._live_sha(),
                "nonce": nonce,
                "keyNeeded": self._key is not None,
                "contractVersion": CONTRACT_VERSION,
                "maxBytes": self._max_bytes,
            },
        )
