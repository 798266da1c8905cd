"""The watchdog's records: the alarm of Agent:Heartbeat, and Agent:State while the agent is lost."""

from __future__ import annotations

import logging

from ptychostream.ioc.attached_agent import AttachedAgent
from ptychostream.ioc.records.records import Records

log = logging.getLogger(__name__)

OFFLINE = 0
"""State of Agent:State."""


class AgentWatch:
    """Looks at the heartbeat, and shows what follows. Not for two threads at once."""

    def __init__(self, agent: AttachedAgent, records: Records) -> None:
        self._agent = agent
        self._records = records
        self._lost = False
        self._state_before = OFFLINE

    def look(self) -> None:
        """To be called some times a second."""
        records = self._records
        self._agent.look(int(records.get("Agent:Heartbeat")))
        lost = self._agent.lost
        if lost == self._lost:
            return
        self._lost = lost
        records.put("Agent:Lost_RBV", int(lost))
        records.process("Agent:Heartbeat")  # disabled while lost, with the alarm that the template says
        state = int(records.get("Agent:State"))
        if lost:
            log.warning("the agent's heartbeat has stopped")
            self._state_before = state
            records.overwrite("Agent:State", OFFLINE)
        else:
            log.info("the agent is back")
            if state == OFFLINE:  # it was only held up, and does not know that it was given up
                records.overwrite("Agent:State", self._state_before)
