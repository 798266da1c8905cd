"""An agent's edge records in a process of its own: `python edge_probe.py PREFIX HOLDER`.

Each line of stdin is JSON: {"report": {…}}, {"judged": […]}, {"done": "retrain"}, {"ask": 1} or {"stop": 1}. It
answers {"asked": {…}} to an `ask`, and prints {"command": …} and {"refused": …} as they come.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from ptychostream.hpc_agent.edge.edge_records import EdgeRecords


def say(**words: Any) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def main() -> None:
    edge = EdgeRecords(
        sys.argv[1],
        on_command=lambda name: say(command=name),
        on_refused=lambda error: say(refused=str(error)),
        holder=sys.argv[2],
    )
    edge.start()
    for line in sys.stdin:
        order = json.loads(line)
        if "report" in order:
            edge.report(**order["report"])
        elif "judged" in order:
            edge.judged(*order["judged"])
        elif "done" in order:
            edge.command_done(order["done"])
        elif "stop" in order:
            break
        else:
            switches = edge.switches()
            say(
                asked={
                    "enabled": switches.enabled,
                    **switches.policy.model_dump(),
                    "live": edge.live_model(),
                    "previous": edge.previous_model(),
                    "rollback": edge.rollback_message(),
                    "saves": edge.saves_canvases(),
                    "dose": asdict(edge.dose()),
                    "held": edge.held,
                    "connected": edge.connected,
                }
            )
    edge.stop()
    say(ended=True)


if __name__ == "__main__":
    main()
