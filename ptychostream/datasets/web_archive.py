"""The files of one folder in a gzipped tar archive at a web address, such as a commit of a public repository.

A server may pack the same commit another way tomorrow, so the checksum is that of the files: SHA-256 over the lines
`sha256  name` of all of them, in order of their names.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from ptychostream.errors import DatasetError
from ptychostream.storage.checksums import sha256_of

_WAIT_S = 30.0
_BLOCK = 1 << 20


@dataclass(frozen=True)
class WebArchive:
    """See `dataset.Origin`.

    Attributes
    ----------
    url
        Address of the archive.
    megabytes
        Its size. Up to half as much again is fetched, and taken from it.
    folder, pattern
        Name of the folder in it, and a regular expression of the wanted files' names.
    files, checksum
        Their number, and their checksum.
    """

    url: str
    megabytes: int
    folder: str
    pattern: str
    files: int
    checksum: str

    @property
    def archive(self) -> str:
        return f"{self.url} ({self.megabytes} MB)"

    def download(self, folder: Path) -> Path:
        target = folder / "archive.tar.gz"
        most = int(1.5e6 * self.megabytes)
        try:
            with urllib.request.urlopen(self.url, timeout=_WAIT_S) as answer, target.open("wb") as file:
                taken = 0
                while block := answer.read(_BLOCK):
                    taken += len(block)
                    if taken > most:
                        raise self._refused(f"it is larger than {most / 1e6:.0f} MB", self.url)
                    file.write(block)
        except OSError as error:
            raise DatasetError(
                f"{self.url} could not be fetched: {error}",
                where="datasets",
                remedy=f"check the network and the disk, or fetch it on another machine and give the file, or its "
                f"folder {self.folder}, with --from",
            ) from error
        return target

    def unpack(self, archive: Path, folder: Path) -> Path:
        """The folder with the wanted files; `archive` may be the folder itself, as a clone of the repository has it."""
        if archive.is_dir():
            found = archive
        else:
            found = folder / "files"
            found.mkdir()
            try:
                with tarfile.open(archive, mode="r:*") as tar:
                    self._extract(tar, found)
            except (OSError, EOFError, tarfile.TarError) as error:
                raise self._refused(f"cannot be read: {error}", str(archive)) from error
        names = sorted(path.name for path in found.iterdir() if self._wanted(path.name))
        if len(names) != self.files:
            raise self._refused(f"{len(names)} files {self.pattern} of {self.files}", str(archive))
        digest = hashlib.sha256()
        for name in names:
            with (found / name).open("rb") as file:
                digest.update(f"{sha256_of(file)}  {name}\n".encode())
        if digest.hexdigest() != self.checksum:
            raise self._refused(f"sha256 of the files is {digest.hexdigest()}, not {self.checksum}", str(archive))
        return found

    def _extract(self, tar: tarfile.TarFile, target: Path) -> None:
        """Write the wanted files by their bare names, up to a bound: nothing else of the archive is believed."""
        room = int(1.5e6 * self.megabytes)
        for name, size, reader in self._members(tar):
            room -= size
            if room < 0:
                raise self._refused(f"its files are larger than {1.5 * self.megabytes:.0f} MB", str(tar.name))
            with reader, (target / name).open("wb") as file:
                shutil.copyfileobj(reader, file)

    def _members(self, tar: tarfile.TarFile) -> Iterator[tuple[str, int, IO[bytes]]]:
        for member in tar:
            path = PurePosixPath(member.name)
            if member.isreg() and path.parent.name == self.folder and self._wanted(path.name):
                reader = tar.extractfile(member)
                if reader is not None:
                    yield path.name, member.size, reader

    def _wanted(self, name: str) -> bool:
        return re.fullmatch(self.pattern, name) is not None

    def _refused(self, why: str, where: str) -> DatasetError:
        return DatasetError(why, where=where, remedy=f"give the archive {self.url}, or its folder {self.folder}")
