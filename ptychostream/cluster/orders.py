"""What the collector tells its consumers: a state to be in, not commands, so that nothing is lost when one is late.

The collector serves it as JSON in one record that only it writes. A consumer compares what it reads with what it last
carried out; one that starts, or sees another collector, takes over the numbers and acts on nothing that is past.
"""

from __future__ import annotations

from pydantic import Field, ValidationError

from ptychostream.config import Settings
from ptychostream.errors import StreamError


class Orders(Settings):
    """The collector's word.

    Attributes
    ----------
    session
        Of the collector; another one after each of its starts.
    ended, ends
        Scan that is over: what waits is inferred at once, what has no position is dropped. And how many were.
    settled, settled_time
        Scan of which every frame up to this acquisition time is in: one that comes now, such as the last update
        repeated by the distributor when a consumer leaves, is late.
    resets
        Counts the commands to empty the canvas.
    unnamed_scan
        Name of the scan for frames that name none.
    scans_begun
        Counts the beginnings of scans that frames do not name.
    dose_scale
        Factor on the counts for the network; 0: the consumer's own.
    model, model_sha256
        Model file that is to run; empty: the consumer's own.
    models
        Counts the model changes.
    states
        Counts the requests for a state at once.
    recall, recalls
        Frames to be taken back from the canvas, because another consumer's holds them too: by instance, (number of
        the run, frame id). And the number of this list, which a consumer reports when it has done what it could.
    """

    session: str
    ended: str = ""
    ends: int = Field(0, ge=0)
    settled: str = ""
    settled_time: float = 0.0
    resets: int = Field(0, ge=0)
    unnamed_scan: str = ""
    scans_begun: int = Field(0, ge=0)
    dose_scale: float = Field(0.0, ge=0)
    model: str = ""
    model_sha256: str = ""
    models: int = Field(0, ge=0)
    states: int = Field(0, ge=0)
    recall: dict[str, list[tuple[int, int]]] = {}
    recalls: int = Field(0, ge=0)

    @classmethod
    def parse(cls, text: str) -> Orders | None:
        """Read the record's text; None while the collector has not written it.

        Raises
        ------
        StreamError
            It is no orders.
        """
        if not text.strip():
            return None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
            remedy = "run collector and consumers of one version of ptychostream"
            raise StreamError(what, where="the collector's orders", remedy=remedy) from error
