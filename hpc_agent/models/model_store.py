"""The model store: every exported model with its weights, its contract, its metrics and its parents.

Each model has a folder, named by the sha256 of its ONNX file, which appears complete or not at all. The folders are the
only index.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ptychostream.errors import ModelError
from ptychostream.hpc_agent.models.stored_model import (
    CHECKPOINT,
    ENTRY,
    MARK,
    MODEL,
    PIN,
    Entry,
    RolledBack,
    StoredModel,
    folder_size,
    read_mark,
    read_number,
    read_stored,
)
from ptychostream.model.model_file import load_model
from ptychostream.storage.atomic import atomic_folder, cannot_be_written, temporary_beside, write_bytes_atomic

_log = logging.getLogger(__name__)

SHORTEST = 4
"""Fewest characters of a sha256 that may name a model."""
ABANDONED_S = 3600.0
"""A temporary folder older than this was left by a process that died."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Sweep:
    """What a garbage collection removes or would remove: models, and leftovers of dead processes; `size` in bytes."""

    removed: list[StoredModel]
    kept: list[StoredModel]
    leftovers: list[Path]
    size: int


class ModelStore:
    """A folder of models.

    Parameters
    ----------
    root
        The folder; made when the first model is added.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def add(
        self,
        onnx_path: str | Path,
        checkpoint_path: str | Path | None = None,
        metrics: Mapping[str, Any] | None = None,
        parents: Sequence[str] = (),
    ) -> str:
        """Add a model once: one that is in the store is kept, unless it is damaged. Any process, at any time.

        Parameters
        ----------
        onnx_path, checkpoint_path
            Files to copy.
        metrics
            Measured values, which JSON can hold.
        parents
            sha256 of the models that it was trained from.

        Returns
        -------
        str
            Its sha256.

        Raises
        ------
        ModelError
            `load_model` refuses the model, or a file cannot be read.
        ScanFileError
            The store cannot be written; nothing is left behind.
        """
        model = load_model(onnx_path)
        folder = self.root / model.sha256
        try:
            checkpoint = b"" if checkpoint_path is None else Path(checkpoint_path).read_bytes()
        except OSError as error:
            remedy = "give the .pt file that lies beside the model"
            raise ModelError(error.strerror or str(error), where=str(checkpoint_path), remedy=remedy) from error
        if folder.exists():
            try:
                return read_stored(folder).sha256
            except ModelError as error:
                _log.warning("%s: it is added anew", error)
                self._remove(folder)
        entry = Entry(
            checkpoint_sha256=hashlib.sha256(checkpoint).hexdigest() if checkpoint else "",
            number=max((read_number(other) for other in self._folders()), default=0) + 1,
            added=datetime.now(timezone.utc).replace(microsecond=0),
            parents=tuple(parents),
            metrics=dict(metrics or {}),
            contract=model.contract,
        )
        try:
            with atomic_folder(folder) as temporary:
                (temporary / MODEL).write_bytes(model.data)
                if checkpoint:
                    (temporary / CHECKPOINT).write_bytes(checkpoint)
                (temporary / ENTRY).write_text(entry.to_json(), encoding="utf-8")
        except OSError as error:
            if self.find(model.sha256) is None:  # another process may have added it meanwhile
                raise cannot_be_written(folder, error) from error
        return model.sha256

    def models(self) -> list[StoredModel]:
        """Every intact model, newest last. `damaged` names the others."""
        return sorted(
            (found for found in self._read_all().values() if isinstance(found, StoredModel)),
            key=lambda model: (model.number, model.added, model.sha256),
        )

    def damaged(self) -> list[tuple[Path, str]]:
        """Folders of models that cannot be trusted, and why."""
        return [(folder, str(found)) for folder, found in self._read_all().items() if isinstance(found, ModelError)]

    def get(self, name: str) -> StoredModel:
        """The model whose sha256 begins with `name`.

        Raises
        ------
        ModelError
            There is none, there are several, or it is damaged.
        """
        where, remedy = str(self.root), "see `ptychostream model list`"
        if len(name) < SHORTEST:
            raise ModelError(f"{name!r} is too short", where=where, remedy=f"give {SHORTEST} characters or more")
        found = [folder for folder in self._folders() if folder.name.startswith(name.lower())]
        if not found:
            raise ModelError(f"no model {name!r}", where=where, remedy=remedy)
        if len(found) > 1:
            which = ", ".join(folder.name[:12] for folder in found)
            raise ModelError(f"{name!r} names {len(found)} models: {which}", where=where, remedy="give more characters")
        return read_stored(found[0])

    def find(self, sha256: str) -> StoredModel | None:
        """The model of that sha256, its files compared with their sums; None: it is missing or damaged."""
        folder = self.root / sha256
        if not _SHA256.fullmatch(sha256) or not folder.is_dir():
            return None
        try:
            return read_stored(folder)
        except ModelError as error:
            _log.warning("%s", error)
            return None

    def lineage(self, sha256: str) -> list[tuple[str, StoredModel | None]]:
        """A model and all its ancestors, nearest first; None for one that is no longer in the store."""
        ancestry: dict[str, StoredModel | None] = {}
        generation = [sha256]
        while generation:
            for name in generation:
                ancestry[name] = self.find(name)
            found = [ancestry[name] for name in generation]
            parents = [parent for model in found if model for parent in model.parents]
            generation = [name for name in dict.fromkeys(parents) if name not in ancestry]
        return list(ancestry.items())

    def pin(self, sha256: str, on: bool = True) -> None:
        """Exclude a model from garbage collection, or include it again.

        Raises
        ------
        ModelError
            There is no such model.
        ScanFileError
            The store cannot be written.
        """
        _put(self.get(sha256).path.with_name(PIN), b"" if on else None)

    def mark_rolled_back(self, sha256: str, reason: str) -> bool:
        """Mark a model that the edge rolled back, in a file that is written completely or not at all.

        Returns
        -------
        bool
            False if it is marked so already; the first time is kept.

        Raises
        ------
        ModelError
            There is no such model.
        ScanFileError
            The store cannot be written.
        """
        folder = self.get(sha256).path.parent
        known = read_mark(folder)
        if known is not None and known.reason == reason:
            return False
        mark = RolledBack(at=datetime.now(timezone.utc).replace(microsecond=0), reason=reason)
        _put(folder / MARK, mark.model_dump_json(indent=1).encode())
        return True

    def lift_mark(self, sha256: str) -> None:
        """Remove the mark of a model that the edge went back to. Raises as `mark_rolled_back`."""
        _put(self.get(sha256).path.with_name(MARK), None)

    def gc(self, keep: int, protect: Collection[str] = (), dry_run: bool = False) -> Sweep:
        """Remove all but the newest models, and the leftovers of processes that died.

        The newest `keep` models are kept, those of `protect` and their parents (which a rollback restores), and the
        pinned ones. Models that were rolled back are removed first, whatever their age. Damaged ones are kept for
        inspection.

        Raises
        ------
        ModelError
            `keep` is negative.
        ScanFileError
            The store cannot be written.
        """
        if keep < 0:
            raise ModelError(f"keep {keep}", where="model store", remedy="keep none or more")
        models = self.models()
        by_name = {model.sha256: model for model in models}
        by_worth = sorted(models, key=lambda model: not model.shunned)  # stable: newest last among their like
        wanted = {model.sha256 for model in by_worth[len(models) - min(keep, len(models)) :]}
        wanted |= {model.sha256 for model in models if model.pinned}
        wanted |= set(protect)
        wanted |= {parent for name in protect if name in by_name for parent in by_name[name].parents}
        removed = [model for model in models if model.sha256 not in wanted]
        leftovers = self._leftovers()
        size = sum(model.size for model in removed) + sum(map(folder_size, leftovers))
        if not dry_run:
            for folder in [*(model.path.parent for model in removed), *leftovers]:
                self._remove(folder)
        return Sweep(removed, [model for model in models if model.sha256 in wanted], leftovers, size)

    def _folders(self) -> list[Path]:
        """The folders of models; other files in the store are ignored."""
        if not self.root.is_dir():
            return []
        return sorted(path for path in self.root.iterdir() if _SHA256.fullmatch(path.name) and path.is_dir())

    def _leftovers(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        hidden = [path for path in self.root.glob(".*.tmp.*") if _SHA256.fullmatch(path.name[-64:])]
        return [path for path in hidden if path.is_dir() and time.time() - path.stat().st_mtime > ABANDONED_S]

    def _read_all(self) -> dict[Path, StoredModel | ModelError]:
        found: dict[Path, StoredModel | ModelError] = {}
        for folder in self._folders():
            try:
                found[folder] = read_stored(folder)
            except ModelError as error:
                found[folder] = error
        return found

    def _remove(self, folder: Path) -> None:
        """Rename the folder first, so that it disappears at once; then remove its files."""
        try:
            hidden = temporary_beside(folder) if _SHA256.fullmatch(folder.name) else folder
            if hidden != folder:
                folder.rename(hidden)
            shutil.rmtree(hidden)
        except FileNotFoundError:
            pass  # another process removed it
        except OSError as error:
            raise cannot_be_written(folder, error) from error


def _put(path: Path, data: bytes | None) -> None:
    """Write a file beside a model completely or not at all; None removes it. Raises ScanFileError."""
    try:
        if data is None:
            path.unlink(missing_ok=True)
        else:
            write_bytes_atomic(path, data)
    except OSError as error:
        raise cannot_be_written(path, error) from error
