"""Who is served: the token, the page's origin, and the host that a browser believes to talk to."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from ptychostream.errors import ConfigError

COOKIE = "ptychostream-token"
SHORTEST_TOKEN = 16
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard:
    """Decides about requests. Pure.

    Parameters
    ----------
    token
        What a client must give; empty: nothing.
    loopback
        Whether the page is served on loopback: then a request for another host's name is refused, because a page from
        elsewhere could reach this server under a name of its own.
    origins
        Origins that may use the page besides its own.
    """

    def __init__(self, token: str, loopback: bool, origins: Collection[str] = ()) -> None:
        self.token = token
        self._loopback = loopback
        self._origins = {origin.rstrip("/").lower() for origin in origins}
        self._hosts = _LOOPBACK_NAMES | {urlsplit(origin).hostname for origin in self._origins}

    def refusal(self, headers: Mapping[str, str], given: str, cookie: str) -> tuple[int, str]:
        """HTTP status and reason of a refusal; (0, ""): the request is served.

        Parameters
        ----------
        headers
            Of the request.
        given, cookie
            The token in the address, and in the cookie.
        """
        host = headers.get("Host", "")
        name = urlsplit(f"//{host}").hostname or ""
        if self._loopback and name.lower() not in self._hosts:
            return 403, f"this server is not {name!r}: use its own address, or give --origin"
        origin = headers.get("Origin", "").rstrip("/").lower()
        if origin and origin not in self._origins and urlsplit(origin).netloc != host.lower():
            return 403, f"a page of {origin[:100]} may not use this server: give --origin {origin[:100]} to allow it"
        if not self.token:
            return 0, ""
        bearer = headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if any(self._equal(one) for one in (given, bearer, cookie)):
            return 0, ""
        return 401, "a token is needed: open the address that ptychostream web printed, or send Authorization: Bearer"

    def _equal(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


def token_for(path: Path | None, on_loopback: bool) -> str:
    """The token of a file; a new one where the page can be reached from elsewhere; else none.

    Raises
    ------
    ConfigError
        The file cannot be read, or its token is short.
    """
    if path is None:
        return "" if on_loopback else secrets.token_urlsafe(24)
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), remedy="give a file with a token") from error
    if len(token) < SHORTEST_TOKEN or not token.isascii():
        remedy = "make one: python3 -c 'import secrets; print(secrets.token_urlsafe(24))'"
        raise ConfigError(f"a token has at least {SHORTEST_TOKEN} ASCII letters", where=str(path), remedy=remedy)
    return token
