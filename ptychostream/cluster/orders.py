"""What the collector asks of its consumers. It is a state and not a list of commands, so that no consumer misses one.

The collector serves it as JSON in one record. A consumer compares it with the state that it applied last. A consumer
that starts, or finds a new collector, takes the numbers over without acting on earlier requests.
"""

from __future__ import annotations

from pydantic import Field, ValidationError

from ptychostream.config import Settings, explain
from ptychostream.errors import StreamError


class Orders(Settings):
    """The state that the collector asks for.

    Attributes
    ----------
    session
        Identifier of the collector's run; new after each of its starts.
    ended, ends
        Scan that has ended: its waiting frames are inferred at once, those without a position are dropped. And the
        number of scans that have ended.
    settled, settled_time
        Scan whose frames up to this acquisition time have all arrived. A further one is late, such as the update that
        the distributor repeats when a consumer leaves.
    resets
        Counts the commands to empty the canvas.
    unnamed_scan
        Scan of frames without a scan name.
    scans_begun
        Counts the scans that began without a name in their frames.
    dose_scale
        Factor on the counts for the network; 0: the consumer's own.
    model, model_sha256
        Model file to run; empty: the consumer's own.
    models
        Counts the model changes.
    states
        Counts the requests for an immediate state.
    recall, recalls
        Frames to remove from the canvas, because another consumer's canvas has them too: by instance, (number of the
        run, frame id). And the number of this list, which a consumer reports when it has processed it.
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
            The text is not valid.
        """
        if not text.strip():
            return None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            remedy = "run collector and consumers of one version of ptychostream"
            raise StreamError(explain(error), where="the collector's orders", remedy=remedy) from error
