"""The names of the agent's records, and the conversion of their values for Channel Access. Pure."""

from __future__ import annotations

from typing import Any

import caproto
from caproto import ChannelType

from ptychostream.statements.record_text import clip

STATES = ("Offline", "Bootstrap", "Active", "Suspended", "Paused", "Fault")
"""The states of Agent:State, in order."""
POLICIES = ("automatic", "always", "never")
"""The states of Agent:Policy, in order. They are the values of `PolicySettings.training`."""

DOSE_AUTO = 1
"""The state Auto of DoseMode_RBV."""

READ = (
    "Agent:Enable", "Agent:Policy", "Agent:Interval", "Agent:Tolerance", "Agent:Scans", "Agent:Lease_RBV",
    "Agent:ReconstructAsked_RBV", "Agent:RetrainAsked_RBV", "Agent:ReconstructDone", "Agent:RetrainDone",
    "Agent:JudgedNonce_RBV",
    "ModelSHA_RBV", "PreviousSHA_RBV", "RollbackMessage_RBV", "AutoSaveCanvas_RBV", "DoseMode_RBV", "DoseScale_RBV",
    "Refine:Status_RBV", "Refine:Scan_RBV",
)  # fmt: skip
WRITTEN = (
    "Agent:State", "Agent:LastScan", "Agent:Message", "Agent:Epoch", "Agent:Epochs", "Agent:TrainLoss",
    "Agent:ValLoss", "Agent:CorpusFrames", "Agent:SSIM", "Agent:SSIMPrevious", "Agent:JudgedPreviousSHA",
    "Agent:JudgedSignature", "Agent:JudgedSHA", "Agent:ReconstructDone", "Agent:RetrainDone",
)  # fmt: skip
"""The records are written in this order. JudgedSHA, on which the edge acts, comes after the values it refers to."""

_TEXT_BYTES = 1023
_LARGEST = 0x7FFFFFFF


def encoded(name: str, value: Any, kind: ChannelType) -> Any:
    """`value` for caproto to write to a channel of this native type. A text that is too long is cut."""
    if name == "Agent:State":
        return STATES.index(value)
    if kind is ChannelType.STRING:
        return clip(str(value))
    if kind is ChannelType.CHAR:
        return list(clip(str(value), _TEXT_BYTES) + b"\0")
    if kind in (ChannelType.LONG, ChannelType.INT):
        return min(int(value), _LARGEST)
    return float(value)


def plain(response: Any) -> object:
    """The value of a Channel Access response as a number or text. Characters become a text. Of an array: the first."""
    data = response.data
    if response.data_type is caproto.ChannelType.CHAR:
        return bytes(int(code) & 0xFF for code in data).split(b"\0")[0].decode(errors="replace")
    if len(data) == 0:
        return None
    value = data[0]
    if isinstance(value, bytes):
        return value.split(b"\0")[0].decode(errors="replace")
    return value.item() if hasattr(value, "item") else value
