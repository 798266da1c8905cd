"""What the frames say of themselves beside what the IOC expects: the contract's statements, or the configuration's."""

from __future__ import annotations

from collections.abc import Iterator

from ptychostream.doctor.finding import Finding, fail, ok, warn
from ptychostream.doctor.stream import SeenStream
from ptychostream.errors import DropCause
from ptychostream.model.contract import ModelContract
from ptychostream.statements.quantities import REGION


def check_region(seen: SeenStream, contract: ModelContract | None) -> Iterator[Finding]:
    """A finding for each quantity that contradicts. The frames are judged as they come, by the IOC's own rule."""
    images = seen.images
    dropped = sum(frame.fault is DropCause.CONTRADICTION for frame in images)
    told: set[str] = set()
    for one in seen.contradictions:
        if one.quantity not in told:
            told.add(one.quantity)
            check = "region" if one.quantity in REGION else one.quantity
            what = f"{one}; {dropped or 'none'} of {len(images)} frames would be dropped"
            yield (fail if dropped else warn)(check, what, one.remedy)
    if contract is not None and images and not told and any(seen.said.about(quantity) for quantity in REGION):
        yield ok("region", f"offset, binning and reverse are those of model {contract.name}")
