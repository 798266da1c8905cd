"""Checksums of files, whatever their size."""

from __future__ import annotations

import hashlib
from typing import IO

_BLOCK = 1 << 20


def sha256_of(file: IO[bytes]) -> str:
    """SHA-256 of what is left in an open file, hexadecimal."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
