"""The protocol of a model push between agent and edge: channel, request, answer and signature.

A push is several remote procedure calls on one channel. The first call has no model. Its answer gives the largest
size of a model, the newest contract version that the edge reads, and a nonce. The others have the model in parts,
in order, so that no push waits in the edge's memory. If the edge has a key, they must be signed with it. A nonce is
valid for one push, so a recorded request cannot be sent again.
"""

from __future__ import annotations

import hashlib
import hmac
import stat
from pathlib import Path

from ptychostream.errors import ConfigError

QUERY = (
    ("model", "aB"), ("sha256", "s"), ("name", "s"), ("nonce", "s"), ("hmac", "s"), ("size", "l"), ("offset", "l"),
)  # fmt: skip
"""Arguments of the call (an NTURI's query) with their PVA type codes. `model` is empty in the first call.

With a `size`, the model's size, `model` holds the part of it that begins at `offset`. Without, it holds all of it.
"""
REPLY = (
    ("value", "s"),  # what was done, to be read by people
    ("sha256", "s"),  # of the live model
    ("nonce", "s"),
    ("keyNeeded", "?"),
    ("contractVersion", "i"),  # the newest version that the edge reads
    ("maxBytes", "l"),
    ("partBytes", "i"),  # the largest part; 0: the edge takes whole models only
)  # fmt: skip
"""Fields of the answer. A call that fails gives an error whose text begins with one of the words below."""
REFUSED = "refused: "
"""The edge refuses this model. Sending it again changes nothing."""
FAILED = "failed: "
"""The push failed for another reason. It may succeed later."""

_SHORTEST_KEY = 16
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def push_channel(prefix: str) -> str:
    """The name of the channel."""
    return f"{prefix}Model:Load"


def signature(key: bytes, channel: str, nonce: str, sha256: str, name: str) -> str:
    """HMAC-SHA256 of a push, hexadecimal (RFC 2104). It covers the model's bytes by their sha256."""
    return _signed(key, channel, nonce, sha256, name)


def judgement_signature(
    key: bytes, prefix: str, nonce: str, live_sha: str, previous_sha: str, ssim: float, ssim_previous: float
) -> str:
    """HMAC-SHA256 of the agent's judgement of two models, hexadecimal."""
    return _signed(key, f"{prefix}Agent:JudgedSHA", nonce, live_sha, previous_sha, f"{ssim:.6f} {ssim_previous:.6f}")


def _signed(key: bytes, *texts: str) -> str:
    parts = [part.encode() for part in texts]
    text = b"".join(
        len(part).to_bytes(4, "big") + part for part in parts
    )  # requests that differ give texts that differ
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def read_key(path: Path | None, where: str) -> bytes | None:
    """Read the shared key from the file `path`, without the white space around it; None without a file.

    Errors name `where`.

    Raises
    ------
    ConfigError
        The file cannot be read, other users may read or change it, or the key is too short.
    """
    if path is None:
        return None
    try:
        mode = path.stat().st_mode
        key = path.read_bytes().strip()
    except OSError as error:
        what, remedy = f"{path}: {error.strerror or error}", "name a file with the key that this user can read"
        raise ConfigError(what, where=where, remedy=remedy) from error
    if mode & _OTHERS:
        what = f"{path} may be read or changed by other users ({stat.filemode(mode)})"
        raise ConfigError(what, where=where, remedy=f"chmod 600 {path}, and make a new key if others have read it")
    if len(key) < _SHORTEST_KEY:
        remedy = f"write at least {_SHORTEST_KEY} random characters to it, the same at the edge and at the agent"
        raise ConfigError(f"{path} holds {len(key)} characters, too few for a key", where=where, remedy=remedy)
    return key
