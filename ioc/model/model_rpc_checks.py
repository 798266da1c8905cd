"""The checks that a push passes before its model is loaded. Pure: no socket, no thread, no clock."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from ptychostream.errors import ModelError
from ptychostream.model.model_push import signature
from ptychostream.model.shown import plain, shown

_RANDOM_BYTES = 16
LONGEST = 256
"""The longest text of a push."""


@dataclass
class PushRequest:
    """What a client sent. `user` is the name it gave itself, `host` the address it called from.

    The model's bytes are those that PV Access holds: they are not copied. With a `size`, they are the part of a model
    of that size that begins at `offset`.
    """

    model: bytes | memoryview = field(repr=False)
    sha256: str
    name: str
    nonce: str
    hmac: str
    user: str
    host: str
    size: int = 0
    offset: int = 0

    @property
    def key(self) -> tuple[str, ...]:
        """What the parts of one push have in common."""
        return self.sha256, self.name, self.nonce, self.hmac, self.user, self.host

    def __str__(self) -> str:
        name = shown(self.name) if self.name else "a model"
        return f"push of {name} ({plain(self.sha256, 12)}) by {plain(self.user)}@{plain(self.host)}"


class Nonces:
    """Numbers used once: each is valid for one push, and for `lifetime_s`.

    A nonce holds the time of its issue, signed with a secret of this process, so only used ones have to be kept.
    """

    def __init__(self, lifetime_s: float = 120.0) -> None:
        self._lifetime_s = lifetime_s
        self._secret = secrets.token_bytes(32)
        self._used: dict[str, float] = {}

    def issue(self, now_s: float) -> str:
        """A new nonce; `now_s` is the monotonic time in seconds."""
        text = f"{round(1e6 * now_s)}-{secrets.token_hex(_RANDOM_BYTES)}"
        return f"{text}.{self._sign(text)}"

    def check(self, nonce: str, now_s: float) -> float:
        """Until when a nonce is valid. Raises ModelError if it was not issued here, is too old, or was used before."""
        self._used = {text: until for text, until in self._used.items() if until > now_s}
        text, _, sign = nonce.rpartition(".")
        remedy = "ask for a nonce, and push again with it"
        if not hmac.compare_digest(sign.encode(), self._sign(text).encode()):
            raise ModelError("the nonce is not one that this edge gave", where="nonce", remedy=remedy)
        until = 1e-6 * int(text.partition("-")[0]) + self._lifetime_s
        if until <= now_s:
            raise ModelError(f"the nonce is older than {self._lifetime_s:.0f} s", where="nonce", remedy=remedy)
        if nonce in self._used:
            raise ModelError("the nonce was used before: a push that was recorded?", where="nonce", remedy=remedy)
        return until

    def redeem(self, nonce: str, now_s: float) -> None:
        """Mark a nonce as used. Raises ModelError as `check`."""
        self._used[nonce] = self.check(nonce, now_s)

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def check_size(size: int, max_bytes: int) -> None:
    """Raise ModelError where a model of so many bytes is too large."""
    if size > max_bytes:
        remedy = "raise model.max_bytes at the edge, or push a smaller model"
        raise ModelError(f"{size:,} bytes, the limit is {max_bytes:,}", where="model", remedy=remedy)


def check_request(
    request: PushRequest, *, channel: str, max_bytes: int, key: bytes | None, nonces: Nonces, now_s: float
) -> None:
    """Check the size, the texts, and where there is a key the signature and the nonce. No byte of the model is read.

    Raises
    ------
    ModelError
        What is wrong with it.
    """
    check_size(max(request.size, len(request.model)), max_bytes)
    long = [name for name in ("sha256", "name", "nonce", "hmac") if len(getattr(request, name)) > LONGEST]
    if long:
        raise ModelError(f"{long[0]} of more than {LONGEST} characters", where="push", remedy="give a shorter one")
    if key is not None:
        signed = signature(key, channel, request.nonce, request.sha256, request.name)
        if not hmac.compare_digest(signed.encode(), request.hmac.encode()):
            what = "the signature is wrong" if request.hmac else "the push is not signed"
            raise ModelError(what, where="hmac", remedy="give the agent the key that the edge has in model.key_file")
        nonces.check(request.nonce, now_s)


def check_bytes(request: PushRequest, found: str, size: int) -> None:
    """Compare the sha256 of the `size` bytes that came with the announced one. Raises ModelError."""
    if found != request.sha256.lower():
        raise ModelError(
            f"the {size:,} bytes that came have sha256 {found[:12]}…, not {shown(request.sha256, 12)}",
            where="model",
            remedy="push it again; where it happens again the file changes while it is sent",
        )
