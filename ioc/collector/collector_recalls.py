"""Frames that two consumers have stitched: one of them takes each frame back, and its states wait for that.

pvaPy's distributor gives its last update to whoever subscribes again, whose ever it was. Whichever canvas came here
first with such a frame keeps it; the other consumer is asked to take it off its own, and until it has answered, its
states are not added up. So no sum ever holds a frame twice, whenever either of them dies. Passive, as the accounts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from ptychostream.cluster.id_set import IdSet
from ptychostream.plugins.consumer.consumer_report import Report

MOST = 64
"""Frames asked back at once. More are no repeats: the stream is not dealt out, and `FramesTwice` says so."""


@dataclass(frozen=True)
class _Asked:
    """When a frame was asked back, by `Recalls.number`, and in which scan's sum it would be twice."""

    number: int
    sum: Hashable


class Recalls:
    """The frames that consumers were asked to take back, and what they have answered."""

    def __init__(self) -> None:
        self.number = 0
        """Counts the changes of what is asked."""
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
            False when a frame of it is on another canvas, and it was not asked back before: it is now.
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
        """What is asked of instances that live and was not answered yet: (number of the run, frame id)."""
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
