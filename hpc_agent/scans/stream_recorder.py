"""Where there is no shared disk, `ptychostream record` runs as long as the agent and writes one file for each scan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import StreamError
from ptychostream.processes.restarter import Restarter, stop_all


class StreamRecorderSettings(Settings):
    """What is recorded, and where to.

    Attributes
    ----------
    channel
        PVA channel of the detector's NTNDArrays.
    template
        Of the files, with `{scan}`: the agent's `CollectSettings.recordings`.
    arguments
        Further arguments of `ptychostream record`, such as `--energy-pv`.
    log
        File for the output of `ptychostream record`.
    stop_s
        How long it may take to finish its files when it is stopped.
    """

    channel: str
    template: str
    arguments: tuple[str, ...] = ()
    log: Path
    stop_s: float = Field(30.0, gt=0)


@contextmanager
def stream_recorder(
    settings: StreamRecorderSettings, environment: Mapping[str, str] | None = None
) -> Iterator[Restarter]:
    """The recording, as long as the block runs; `check` has to be called often.

    Parameters
    ----------
    settings
        See `StreamRecorderSettings`. A recording that is killed because it does not stop in time leaves a file that
        `ptychostream record --recover` finishes.
    environment
        Of the recording; None: that of this process.

    Raises
    ------
    StreamError
        It does not start.
    """
    words = ("record", settings.channel, settings.template, *settings.arguments)
    recorder = Restarter("recording", "ptychostream", words, settings.log, environment)
    try:
        settings.log.parent.mkdir(parents=True, exist_ok=True)
        recorder.start()
    except OSError as error:
        what = f"the recording does not start: {error}"
        raise StreamError(what, where=settings.channel, remedy="check the log's folder") from error
    try:
        yield recorder
    finally:
        stop_all([recorder], settings.stop_s)
