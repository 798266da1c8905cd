"""The files of pushed models: named by sha256, written atomically; the oldest are removed."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychostream.storage.atomic import atomic_path, publish
from ptychostream.errors import ModelError
from ptychostream.storage.checksums import sha256_of

log = logging.getLogger(__name__)

_OURS = re.compile(r"[0-9a-f]{64}\.onnx")
_SHA256 = re.compile(r"[0-9a-f]{64}")


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

    def place(self, sha256: str) -> Path:
        """The path of a pushed model. Raises ModelError: there is no folder, or `sha256` is none."""
        if self._folder is None:
            remedy = "set model.directory at the edge, the folder that pushed models are kept in"
            raise ModelError("this edge has no folder for models", where="push", remedy=remedy)
        if not _SHA256.fullmatch(sha256.lower()):
            raise ModelError("no sha256", where="push", remedy="give 64 hexadecimal digits")
        return self._folder.resolve() / f"{sha256.lower()}.onnx"

    def stage(self, data: bytes | memoryview, sha256: str) -> tuple[Path, bool]:
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
        path = self.place(sha256)
        with _told(path):
            new = not _holds(path, sha256)
            if new:
                with atomic_path(path) as temporary:
                    temporary.write_bytes(data)
            else:
                path.touch()
        return path, new

    def adopt(self, temporary: Path, sha256: str) -> tuple[Path, bool]:
        """As `stage`, for a file in the folder, which is renamed or removed."""
        path = self.place(sha256)
        with _told(path):
            new = not _holds(path, sha256)
            if new:
                publish(temporary, path)
            else:
                temporary.unlink()
                path.touch()
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


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "check the folder's permissions and the disk's free space"
        raise OSError(f"{path} cannot be written: {error.strerror or error} ({remedy})") from error


def _holds(path: Path, sha256: str) -> bool:
    """Whether the file is there and has this sha256."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return sha256_of(file) == sha256.lower()
