"""Models pushed over PV Access: a remote procedure call that takes the model and answers when it is live.

The channel `Model:Load` is served by p4p, beside QSRV and the images. It obeys the rule of the group MODEL in the
records' access security file. The user's name is what the client says: neither PV Access nor Channel Access
proves it. Where others share the network, give the edge and the agent a key: every push is then signed.
"""

from __future__ import annotations

import hashlib
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
from ptychostream.ioc.model.model_rpc_checks import Nonces, PushRequest, check_bytes, check_request, check_size
from ptychostream.ioc.model.model_rpc_folder import PushedModels
from ptychostream.ioc.model.model_rpc_parts import PART_BYTES, Arrival, OtherPushError
from ptychostream.ioc.model.rare_log import RareLog
from ptychostream.model.shown import plain
from ptychostream.model.model_push import FAILED, QUERY, REFUSED, REPLY, push_channel

log = logging.getLogger(__name__)

ACCESS_GROUP = "MODEL"

MayWrite = Callable[[str, str, str], bool]
"""(access security group, user, host) → whether that user may write there."""


class Slot(Protocol):
    """What a push needs of the model slot."""

    @property
    def live(self) -> Any: ...

    @property
    def previous(self) -> Any: ...

    def load(self, path: Any, expected_sha256: str = "") -> None: ...

    @property
    def message(self) -> str: ...


class ModelRpc:
    """Takes pushed models to the model slot, one at a time: while one is under way, others are to come again later.

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
        self._arrival = Arrival(folder)
        self._refusals = RareLog(log)
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
        self._arrival.stop()
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
            else:
                self._take(request, op)
        except ModelError as error:
            self._refusals.warn(f"a push is refused: {error}")
            op.done(error=f"{REFUSED}{error}")
        except OtherPushError as error:
            op.done(error=f"{FAILED}{error} (push again later)")
        except OSError as error:
            self._refusals.warn(f"a push failed: {error}")
            op.done(error=f"{FAILED}{error}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            names = ", ".join(name for name, _ in QUERY)
            op.done(error=f"{REFUSED}not a push: {plain(str(error))} (send an NTURI whose query has {names})")

    def _take(self, request: PushRequest, op: Any) -> None:
        """Take a part, or a whole model; the last part and the whole model go on in the worker."""
        check_request(
            request,
            channel=self._channel,
            max_bytes=self._max_bytes,
            key=self._key,
            nonces=self._nonces,
            now_s=time.monotonic(),
        )
        if not request.size:
            self._arrival.claim(request)
        elif not self._arrival.add(request):
            op.done(self._answer("part"))
            return
        self._worker.submit(self._serve, request, op)

    def _allowed(self, op: Any) -> PushRequest:
        peer = op.peer()
        host = peer.rpartition(":")[0] or peer
        users = [op.account(), *(f"role/{role}" for role in op.roles())]
        if not any(self._may_write(ACCESS_GROUP, user, host) for user in users):
            remedy = "name the user in access.agents at the edge, or in the group MODEL of its access security file"
            raise ModelError(
                f"{plain(users[0])}@{plain(host)} may not load models", where="access security", remedy=remedy
            )
        query = op.value()["query"]
        model = query.get("model")
        if model is None or not len(model):
            data: bytes | memoryview = b""
        else:
            check_size(model.nbytes, self._max_bytes)
            data = memoryview(model).cast("B")
        texts = {name: str(query.get(name) or "") for name in ("sha256", "name", "nonce", "hmac")}
        size, offset = int(query.get("size") or 0), int(query.get("offset") or 0)
        if size < 0 or offset < 0:
            raise ValueError("size or offset below 0")
        return PushRequest(model=data, user=users[0], host=host, size=size, offset=offset, **texts)

    # In the worker

    def _serve(self, request: PushRequest, op: Any) -> None:
        try:
            message = self._push(request)
        except ModelError as error:
            self._refusals.warn(f"{request} is refused: {error}")
            op.done(error=f"{REFUSED}{error}")
        except (PtychostreamError, OSError) as error:
            self._refusals.warn(f"{request} failed: {error}")
            op.done(error=f"{FAILED}{error}")
        except Exception as error:  # the thread's outermost; the caller must get an answer
            log.exception("%s failed", request)
            op.done(error=f"{FAILED}{error}")
        else:
            op.done(self._answer(message))
        finally:
            self._arrival.end()

    def _push(self, request: PushRequest) -> str:
        if self._stopping.is_set():
            raise OSError("the IOC is ending (push again when it runs)")
        if request.size:
            temporary, found = self._arrival.finish()
        else:
            temporary, found = None, hashlib.sha256(request.model).hexdigest()
        size = request.size or len(request.model)
        check_bytes(request, found, size)
        if self._key is not None:
            self._nonces.redeem(request.nonce, time.monotonic())
        if found == self._live_sha():
            return "runs already"
        if temporary is not None:
            path, new = self._folder.adopt(temporary, found)
        else:
            path, new = self._folder.stage(request.model, found)
        log.info("%s: %d bytes", request, size)
        request.model = b""  # its memory is free from here on
        try:
            self._slot.load(path, expected_sha256=request.sha256.lower())
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
                "partBytes": PART_BYTES,
            },
        )
