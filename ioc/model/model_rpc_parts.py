"""A pushed model that arrives in parts: each part is written to a file as it comes, so that none waits in memory."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptychostream.errors import ModelError
from ptychostream.ioc.model.model_rpc_checks import PushRequest
from ptychostream.ioc.model.model_rpc_folder import PushedModels
from ptychostream.storage.atomic import temporary_beside

PART_BYTES = 1 << 20
"""The largest part."""
_SILENT_S = 10.0
"""A push whose next part does not come for so long is over."""


class OtherPushError(Exception):
    """Another push is under way, or this one is not: it may succeed later."""


class Arrival:
    """The one push that is under way: from its first part, or from the call that brings all of it, to its answer.

    Parameters
    ----------
    folder
        Where the file is made.
    clock
        Monotonic seconds.
    """

    def __init__(self, folder: PushedModels, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._key: tuple[str, ...] | None = None  # of the push under way
        self._loading = False
        self._heard_s = 0.0
        self._path: Path | None = None
        self._digest: Any = None
        self._received = 0

    def claim(self, request: PushRequest) -> None:
        """This push is under way now. Raises OtherPushError where another one is."""
        with self._lock:
            self._claim(request)
            self._loading = True

    def add(self, request: PushRequest) -> bool:
        """Take a part.

        Returns
        -------
        bool
            Whether it was the last one: the push is claimed then, and `finish` gives the file.

        Raises
        ------
        OtherPushError
            Another push is under way, or the parts before this one did not come.
        ModelError
            There is no folder; or the part is too large or reaches beyond the size.
        OSError
            The file cannot be written.
        """
        with self._lock:
            if request.offset == 0:
                self._claim(request)
                self._begin(request)
            if self._path is None or self._loading or (self._key, self._received) != (request.key, request.offset):
                raise OtherPushError("the parts before this one did not come")
            if len(request.model) > PART_BYTES or request.offset + len(request.model) > request.size:
                self._discard()
                what = f"a part of {len(request.model):,} bytes at {request.offset:,} of {request.size:,}"
                raise ModelError(what, where="push", remedy=f"send parts of {PART_BYTES:,} bytes at most")
            try:
                with self._path.open("ab") as file:  # nothing stays open if the next part never comes
                    file.write(request.model)
            except OSError:
                self._discard()
                raise
            self._digest.update(request.model)
            self._received += len(request.model)
            self._heard_s = self._clock()
            self._loading = self._received == request.size
            return self._loading

    def finish(self) -> tuple[Path, str]:
        """The temporary path of the file whose last part has come, and its sha256."""
        with self._lock:
            assert self._path is not None
            return self._path, str(self._digest.hexdigest())

    def end(self) -> None:
        """The push is over. What is left of its file is removed."""
        with self._lock:
            self._discard()

    def stop(self) -> None:
        """No more parts come. A push whose last part has not come is given up."""
        with self._lock:
            if not self._loading:
                self._discard()

    def _claim(self, request: PushRequest) -> None:
        silent = self._clock() - self._heard_s > _SILENT_S
        if self._key is not None and (self._loading or (self._key != request.key and not silent)):
            raise OtherPushError("another push is under way")
        self._discard()
        self._key, self._heard_s = request.key, self._clock()

    def _begin(self, request: PushRequest) -> None:
        """Make the file. The folder is made if it is missing: a newly installed edge has none."""
        try:
            path = self._folder.place(request.sha256)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._path = temporary_beside(path)
            self._path.touch(exist_ok=False)
        except (OSError, ModelError):
            self._discard()
            raise
        self._digest, self._received = hashlib.sha256(), 0

    def _discard(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._key = self._path = None
        self._loading = False
