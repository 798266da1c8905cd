"""What the agent and the edge agree on when a model is pushed: the channel, the request, and how it is signed.

A push is two remote procedure calls on one channel. The first has no model: its answer says how large a model may be,
which contracts the edge reads, and gives a nonce. The second brings the model. Where the edge has a key the second is
signed with it; a nonce is good for one push, so that a recorded request cannot be sent again, whatever the clocks say.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from ptychostream.errors import ConfigError

QUERY = (("model", "aB"), ("sha256", "s"), ("name", "s"), ("nonce", "s"), ("hmac", "s"))
"""Arguments of the call (an NTURI's query), with their PVA type codes; `model` is empty in the first call."""
REPLY = (
    ("value", "s"),  # what was done, for people
    ("sha256", "s"),  # of the model that is live now
    ("nonce", "s"),
    ("keyNeeded", "?"),
    ("contractVersion", "i"),  # the newest that the edge reads
    ("maxBytes", "l"),
)  # fmt: skip
"""Fields of the answer. Calls that fail answer with an error, whose text begins with one of the words below."""
REFUSED = "refused: "
"""The edge will not run this model: to send it again changes nothing."""
FAILED = "failed: "
"""It did not work this time."""

_SHORTEST_KEY = 16


def push_channel(prefix: str) -> str:
    """The channel's name."""
    return f"{prefix}Model:Load"


def signature(key: bytes, channel: str, nonce: str, sha256: str, name: str) -> str:
    """HMAC-SHA256 of a push, hexadecimal (RFC 2104); the model's bytes are in it by their sha256."""
    parts = [part.encode() for part in (channel, nonce, sha256, name)]
    text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)  # no two requests give one text
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def read_key(path: Path, where: str) -> bytes:
    """The shared key in the file `path`, white space around it left out; `where` is the configuration key.

    Raises
    ------
    ConfigError
        The file cannot be read, or its key is too short to be one.
    """
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        what, remedy = f"{path}: {error.strerror or error}", "name a file with the key that this user can read"
        raise ConfigError(what, where=where, remedy=remedy) from error
    if len(key) < _SHORTEST_KEY:
        remedy = f"write at least {_SHORTEST_KEY} random characters to it, the same at the edge and at the agent"
        raise ConfigError(f"{path} holds {len(key)} characters, too few for a key", where=where, remedy=remedy)
    return key
