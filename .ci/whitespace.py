"""Takes blanks off the ends of lines, and ends a file with one line feed: `python .ci/whitespace.py FILE...`.

The exit status is 1 where a file was changed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def clean(data: bytes) -> bytes:
    """The text with its blanks gone."""
    lines = re.sub(rb"[ \t]+(?=\r?\n|\Z)", b"", data).rstrip(b"\r\n")
    return lines + b"\n" if lines else b""


def main(names: list[str]) -> int:
    """Mend the files, and name those that were changed."""
    changed = 0
    for name in names:
        data = Path(name).read_bytes()
        if clean(data) != data:
            Path(name).write_bytes(clean(data))
            print(f"{name}: blanks removed")
            changed = 1
    return changed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
