"""One model of the store: a folder with the ONNX file, the weights and `model.json`, each checked when it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ptychostream.config import explain
from ptychostream.errors import ModelError
from ptychostream.model.contract import ModelContract
from ptychostream.storage.checksums import sha256_of

MODEL, CHECKPOINT, ENTRY, PIN, MARK = "model.onnx", "model.pt", "model.json", "pinned", "rolled_back.json"
_ARRAYS: dict[str, Any] = {"golden": True, "patch_weight": True, "probe": True, "preprocessing": {"bad_pixels"}}


class Entry(BaseModel):
    """The content of `model.json`."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    checkpoint_sha256: str = ""
    number: int
    added: datetime
    parents: tuple[str, ...] = ()
    metrics: dict[str, Any] = {}
    contract: ModelContract

    def to_json(self) -> str:
        """The entry as JSON. The contract's arrays are left out, because the ONNX file has them."""
        return self.model_dump_json(exclude={"contract": _ARRAYS}, exclude_none=True, indent=1)


class RolledBack(BaseModel):
    """The content of `rolled_back.json`: the edge rolled back from this model. `at` is by the agent's clock."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    reason: str


@dataclass(frozen=True)
class StoredModel:
    """One model of the store.

    Attributes
    ----------
    sha256
        sha256 of its ONNX file.
    path, checkpoint
        The ONNX file, and the weights for a warm start. None: there are no weights.
    contract
        The contract of the ONNX file without its arrays.
    metrics
        The figures that were measured when the model was made.
    parents
        sha256 of the models that its training started from. They may have been removed.
    number, added
        The number counts the models in order of arrival. The time is by the clock, which may have been set.
    pinned
        Whether the model is never removed.
    rolled_back
        The rollback from this model. None: there was none.
    """

    sha256: str
    path: Path
    checkpoint: Path | None
    contract: ModelContract
    metrics: Mapping[str, Any]
    parents: tuple[str, ...]
    number: int
    added: datetime
    pinned: bool
    rolled_back: RolledBack | None = None

    @property
    def size(self) -> int:
        """Size on the disk, bytes."""
        return folder_size(self.path.parent)

    @property
    def shunned(self) -> bool:
        """Whether no training may start from it: the edge rolled back from it, and it is not pinned."""
        return self.rolled_back is not None and not self.pinned


def read_stored(folder: Path) -> StoredModel:
    """The model in `folder`.

    Raises
    ------
    ModelError
        A file is missing or was changed.
    """
    remedy = "remove that folder, or add the model again"
    try:
        entry = Entry.model_validate_json((folder / ENTRY).read_bytes())
        sums = {MODEL: folder.name, CHECKPOINT: entry.checkpoint_sha256}
        for name, sha256 in sums.items():
            if sha256 and _sum(folder / name) != sha256:
                raise ModelError(f"{name} is not what was written", where=str(folder), remedy=remedy)
    except OSError as error:
        what = f"damaged: {error.strerror or error}"
        raise ModelError(what, where=error.filename or str(folder), remedy=remedy) from error
    except ValidationError as error:
        raise ModelError(f"damaged: {explain(error)}", where=str(folder / ENTRY), remedy=remedy) from error
    return StoredModel(
        sha256=folder.name,
        path=folder / MODEL,
        checkpoint=folder / CHECKPOINT if entry.checkpoint_sha256 else None,
        contract=entry.contract,
        metrics=entry.metrics,
        parents=entry.parents,
        number=entry.number,
        added=entry.added,
        pinned=(folder / PIN).exists(),
        rolled_back=read_mark(folder),
    )


def read_mark(folder: Path) -> RolledBack | None:
    """The mark of a rollback from this model, or None. A mark that cannot be read counts as a mark."""
    path = folder / MARK
    try:
        return RolledBack.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        return RolledBack(at=datetime.fromtimestamp(0, timezone.utc), reason=f"{MARK} cannot be read")


def read_number(folder: Path) -> int:
    """Of a model, sound or not; 0 where it cannot be told."""
    try:
        return int(json.loads((folder / ENTRY).read_bytes())["number"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return sha256_of(file)


def folder_size(folder: Path) -> int:
    """Bytes of the files in it."""
    return sum(file.stat().st_size for file in folder.iterdir())
