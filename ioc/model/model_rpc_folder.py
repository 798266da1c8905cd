"""The files of pushed models: named by sha256, written atomically; the oldest are removed."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from pathlib import Path

from ptychostream.storage.atomic import write_bytes_atomic
from ptychostream.errors import ModelError

log = logging.getLogger(__name__)

_OURS = re.compile(r"[0-9a-f]{64}\.onnx")


class PushedModels:
    """Pushed models in the folder of models. For one thread at a time.

    Parameters
    ----------
    folder
        The folder of models; None: models are not taken.
    keep
        How many pushed models stay there besides those in use; the oldest go first.
    """

    def __init__(self, folder: Path | None, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def stage(self, data: bytes, sha256: str) -> tuple[Path, bool]:
        """Keep the model's bytes in the folder; its sha256 has been checked.

        Returns
        -------
        path, new
            The file, and whether it was written now. A file with the same name and other bytes is written again.

        Raises
        ------
        ModelError
            There is no folder.
        OSError
            The file cannot be written.
        """
        if self._folder is None:
            remedy = "set model.directory at the edge, the folder that pushed models are kept in"
            raise ModelError("this edge has no folder for models", where="push", remedy=remedy)
        path = self._folder.resolve() / f"{sha256.lower()}.onnx"
        try:
            new = not path.is_file() or path.stat().st_size != len(data) or path.read_bytes() != data
            if new:
                write_bytes_atomic(path, data)
            else:
                path.touch()
        except OSError as error:
            remedy = "check the folder's permissions and the disk's free space"
            raise OSError(f"{path} cannot be written: {error.strerror or error} ({remedy})") from error
        return path, new

    def tidy(self, in_use: Collection[str]) -> None:
        """Remove the oldest pushed models; those of the sha256s `in_use` stay."""
        if self._folder is None:
            return
        found = [path for path in self._folder.glob("*.onnx") if _OURS.fullmatch(path.name)]
        idle = [path for path in found if path.stem not in in_use]
        for path in sorted(idle, key=lambda path: path.stat().st_mtime, reverse=True)[self._keep :]:
            log.info("pushed model %s is removed: %d newer ones are kept", path.name, self._keep)
            path.unlink(missing_ok=True)
