"""What kind of file system a folder is on: one of this machine, or one that several hosts share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_SHARED = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|lustre|gpfs|beegfs|fhgfs|ceph|afs|9p|virtiofs|glusterfs|pvfs2|orangefs|panfs|wekafs|"
    r"ocfs2|gfs2|fuse\.(?!gvfsd|portal|lxcfs).*"
)
_OWN_LOCKS = {"nolock", "local_lock=all", "local_lock=flock", "nobrl", "localflock"}
"""Options of NFS, SMB and Lustre with which a lock is seen on this machine alone."""


@dataclass(frozen=True)
class FileSystem:
    """A mounted file system: its type, and its options."""

    kind: str
    options: frozenset[str]

    @property
    def shared(self) -> bool:
        """Whether other hosts may have it mounted, too."""
        return bool(_SHARED.fullmatch(self.kind))

    @property
    def shares_locks(self) -> bool:
        """Whether a lock is seen by the other hosts, as far as the options say it."""
        return not (self.shared and self.options & _OWN_LOCKS)


def file_system(path: Path, mounts: Path = _MOUNTS) -> FileSystem:
    """The file system of `path`, which need not exist. Where the system does not say it, the type is empty.

    Examples
    --------
    >>> file_system(Path("/proc")).shared
    False
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return FileSystem("", frozenset())
    wanted = path.resolve()
    best, found = -1, FileSystem("", frozenset())
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, behind = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(behind) < 3:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4]))
        if len(point.parts) >= best and wanted.is_relative_to(point):
            options = frozenset(fields[5].split(",") + behind[2].split(","))
            best, found = len(point.parts), FileSystem(behind[0], options)
    return found
