"""The region of the sensor that the detector says its images show, beside the region of the model's contract."""

from __future__ import annotations

from collections.abc import Iterator

from p4p import Value
from p4p.client.thread import Context

from ptychostream.doctor.finding import Finding, fail, ok
from ptychostream.model.contract import ModelContract
from ptychostream.pva.frame_statements import region_said
from ptychostream.statements.description import Description
from ptychostream.statements.quantities import REGION

_REMEDY = "set the detector's region, binning and reverse as at the training, or load a model for these"


def check_region(said: Description | None, contract: ModelContract | None) -> Iterator[Finding]:
    """The findings, from what `read_region` gave. None: the channel did not answer."""
    if said is None or contract is None or not contract.region:
        return
    contradictions = said.against(contract.said(), REGION, remedy=_REMEDY)
    for contradiction in contradictions:
        yield fail("region", str(contradiction), contradiction.remedy)
    if not contradictions:
        yield ok("region", f"offset, binning and reverse are those of model {contract.name}")


def read_region(channel: str, timeout_s: float) -> Description | None:
    """What the channel's newest image says; None where it does not answer."""
    with Context("pva", nt=False) as context:
        answer = context.get(channel, request="field(dimension)", timeout=timeout_s, throw=False)
    return region_said(answer, channel) if isinstance(answer, Value) else None
