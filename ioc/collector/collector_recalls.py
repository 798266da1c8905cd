"""Frames that two consumers have stitched: one of them takes each frame back, and its states wait for that.

pvaPy's distributor sends its last update again to a consumer that subscribes anew, even if another consumer has it.
The first canvas that is reported with such a frame keeps it. The other consumer is asked to take the frame off its
canvas, and its states are not added up until it has answered. So no sum ever holds a frame twice, even when one of the
two dies. Passive: no thread, no clock, no lock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from ptychostream.cluster.id_set import IdSet
from ptychostream.plugins.consumer.consumer_report import Report

MOST = 64
"""Most frames asked back at once. If there are more, every consumer gets the whole stream: `FramesTwice` shows it."""


@dataclass(frozen=True)
class _Asked:
    """A request: its `Recalls.number`, and the sum in which the frame would be twice."""

    number: int
    sum: Hashable


class Recalls:
    """The frames that consumers were asked to take back, and what they have answered."""

    def __init__(self) -> None:
        self.number = 0
        """Counts the requests."""
        self._asked: dict[tuple[str, int, int], _Asked] = {}  # by instance, its run and frame id
        self._answered: dict[str, int] = {}  # by instance: the last number that it has carried out

    def admits(self, report: Report, to: Hashable, others: Iterable[IdSet]) -> bool:
        """Whether a state may be added up.

        Parameters
        ----------
        report
            The state.
        to
            What it would be added to.
        others
            Ids of the frames on the canvases that are added up, of the same run in other consumers.

        Returns
        -------
        bool
            False when one of its frames is on another canvas; the consumer is then asked to take that frame back.
        """
        run = report.run
        self._answered[report.instance] = max(self._answered.get(report.instance, 0), report.recalls)
        if run.laid is None:
            return True
        doubled = {(report.instance, run.number, frame_id) for ids in others for frame_id in run.laid.common(ids)}
        if fresh := doubled - self._asked.keys():
            if len(fresh) + len(self._open()) > MOST:
                return True
            self.number += 1
            self._asked |= dict.fromkeys(fresh, _Asked(self.number, to))
        return not doubled & set(self._open())

    def open(self, live: Iterable[str]) -> dict[str, list[tuple[int, int]]]:
        """Open requests by live instance: (number of the run, frame id) of each frame to be taken back."""
        asked: dict[str, list[tuple[int, int]]] = {instance: [] for instance in live}
        for instance, run, frame_id in self._open():
            if instance in asked:
                asked[instance].append((run, frame_id))
        return {instance: frames for instance, frames in asked.items() if frames}

    def forget(self, gone: Hashable) -> None:
        """Forget the frames of a scan that is no longer kept."""
        self._asked = {key: asked for key, asked in self._asked.items() if asked.sum != gone}

    def forget_instance(self, instance: str) -> None:
        """Forget a process of a consumer."""
        self._answered.pop(instance, None)

    def _open(self) -> list[tuple[str, int, int]]:
        return [key for key, asked in self._asked.items() if self._answered.get(key[0], 0) < asked.number]
