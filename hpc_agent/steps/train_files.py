"""Files that a training keeps in the scan's folder between attempts, and how its model is added to the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.hpc_agent.steps.step_parts import write_json
from ptychostream.hpc_agent.training.checkpoint import checkpoint_path
from ptychostream.scans.phase_file import file_stem


class TrainFiles:
    """The files of the training of one model.

    Attributes
    ----------
    model
        The ONNX file before it is added to the store, with its checkpoint beside it.
    state
        State of the training after its last epoch.
    start
        The start that was chosen, if stored models were tried.
    summary
        The result, once there is a model.
    """

    def __init__(self, folder: Path, name: str) -> None:
        stem = f"train-{file_stem(name)}"
        self.model = folder / f"{stem}.onnx"
        self.state = folder / f"{stem}.state"
        self.start = folder / f"{stem}-start.json"
        self.summary = folder / f"{stem}.json"

    def finished(self, task: str, models: ModelStore) -> dict[str, Any] | None:
        """The summary of this task's finished model, which is in the store when this returns; None: not finished."""
        try:
            content = json.loads(self.summary.read_text(encoding="utf-8"))
            summary: dict[str, Any] = dict(content["summary"])
            if content["task"] != task:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if models.find(summary["sha256"]) is None:
            if not self.model.exists():
                return None
            self._add(summary, models)
        self._clear()
        return summary

    def finish(self, task: str, summary: dict[str, Any], models: ModelStore) -> None:
        """Add the model to the store. The summary is written first, so that a kill in between loses nothing."""
        write_json(self.summary, {"task": task, "summary": summary})
        self._add(summary, models)
        self._clear()

    def _add(self, summary: dict[str, Any], models: ModelStore) -> None:
        models.add(self.model, checkpoint_path(self.model), summary, summary["parents"])

    def _clear(self) -> None:
        for path in (self.state, self.start, self.start.with_suffix(".pt"), checkpoint_path(self.model), self.model):
            path.unlink(missing_ok=True)
