"""The checks that a push passes before its model is loaded. Pure: no socket, no thread, no clock."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from ptychostream.errors import ModelError
from ptychostream.model.model_push import signature

_RANDOM_BYTES = 16


@dataclass(frozen=True)
class PushRequest:
    """What a client sent. `user` is the name it gave itself, `host` the address it called from."""

    model: bytes = field(repr=False)
    sha256: str
    name: str
    nonce: str
    hmac: str
    user: str
    host: str

    def __str__(self) -> str:
        return f"push of {self.name or 'a model'} ({self.sha256[:12]}) by {self.user}@{self.host}"


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

    def redeem(self, nonce: str, now_s: float) -> None:
        """Mark a nonce as used. Raises ModelError where it was not issued here, is too old, or was used before."""
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
        self._used[nonce] = until

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def check_push(
    request: PushRequest, *, channel: str, max_bytes: int, key: bytes | None, nonces: Nonces, now_s: float
) -> None:
    """Check size, signature, nonce and sha256 of a push. The nonce cannot be used again.

    Raises
    ------
    ModelError
        What is wrong with it.
    """
    if len(request.model) > max_bytes:
        raise ModelError(
            f"{len(request.model):,} bytes, the limit is {max_bytes:,}",
            where="model",
            remedy="raise model.max_bytes at the edge, or push a smaller model",
        )
    if key is not None:
        signed = signature(key, channel, request.nonce, request.sha256, request.name)
        if not hmac.compare_digest(signed.encode(), request.hmac.encode()):
            what = "the signature is wrong" if request.hmac else "the push is not signed"
            raise ModelError(what, where="hmac", remedy="give the agent the key that the edge has in model.key_file")
        nonces.redeem(request.nonce, now_s)
    found = hashlib.sha256(request.model).hexdigest()
    if found != request.sha256.lower():
        raise ModelError(
            f"the {len(request.model):,} bytes that came have sha256 {found[:12]}…, not {request.sha256[:12]!r}",
            where="model",
            remedy="push it again; where it happens again the file changes while it is sent",
        )
