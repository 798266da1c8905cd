"""Whether the agent's judgement of the models may be followed: who wrote it, and where there is a key its signature."""

from __future__ import annotations

import hmac
import secrets
import threading

from ptychostream.errors import AgentError
from ptychostream.ioc.model.canary_rollback import Judgement
from ptychostream.model.model_push import judgement_signature
from ptychostream.model.shown import plain

_WHERE = "Agent:JudgedSHA"


class Verdicts:
    """Takes each judgement once.

    Parameters
    ----------
    prefix
        Of the records.
    key
        Judgements must be signed with it; None: no signature is asked for.

    Attributes
    ----------
    nonce
        What the next signature has to cover. It is another one after every judgement that was taken.
    """

    def __init__(self, prefix: str, key: bytes | None) -> None:
        self._prefix = prefix
        self._key = key
        self._lock = threading.Lock()
        self.nonce = secrets.token_hex(16)

    def check(self, judged: Judgement, signed: str, holder: str, alive: bool) -> str:
        """Return who has judged, for messages.

        Parameters
        ----------
        signed
            The signature that came.
        holder, alive
            Who has the lease of the agent, and whether its heart beats.

        Raises
        ------
        AgentError
            Nobody has the lease, its holder's heart does not beat, or the signature is wrong.
        """
        if not holder or not alive:
            what = "no agent holds the lease" if not holder else f"the heart of {plain(holder)} does not beat"
            raise AgentError(f"a judgement is not followed: {what}", where=_WHERE, remedy="start the agent")
        with self._lock:
            if self._key is not None:
                figures = judged.live_sha, judged.previous_sha, judged.ssim, judged.ssim_previous
                wanted = judgement_signature(self._key, self._prefix, self.nonce, *figures)
                if not hmac.compare_digest(wanted.encode(), signed.encode()):
                    what = "the signature is wrong" if signed else "it is not signed"
                    what = f"a judgement by {plain(holder)} is not followed: {what}"
                    remedy = "give the agent the key that the edge has in model.key_file, as push.key_file"
                    raise AgentError(what, where=_WHERE, remedy=remedy)
            self.nonce = secrets.token_hex(16)
        return plain(holder)
