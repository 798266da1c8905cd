"""Writes what follows from the declarations: `python -m ptychostream.ioc.declarations`.

db/<group>_declared.template holds the records of settings and figures, and the IOC loads these files as they are
committed. Records that no declaration describes stand in db/<group>.template, written by hand.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ptychostream.ioc.config.settings import IocSettings
from ptychostream.ioc.config.setpoints import setpoints
from ptychostream.ioc.readbacks import readbacks
from ptychostream.db.templates import FOLDER as DB_FOLDER
from ptychostream.ioc.records.database import load_template, records
from ptychostream.ioc.records.templates import setting_text, shown_text
from ptychostream.ioc.view import Readback

HEAD = """# Made by `python -m ptychostream.ioc.declarations` from declarations in Python; do not edit.
# Macros: P, R prefixes.
"""


def templates(kind: type[IocSettings], shown: Iterable[Readback]) -> dict[str, str]:
    """Text of each group's template: the settings of `kind` that are records, and the readbacks."""
    groups: dict[str, list[str]] = defaultdict(lambda: [HEAD])
    for one in setpoints(kind).values():
        groups[one.setting.group].append(setting_text(one))
    for readback in shown:
        groups[readback.group].append(shown_text(readback, readback.of, saved=readback.saved))
    return {group: "\n".join(texts) for group, texts in groups.items()}


def load_others(prefix: str, kind: type[IocSettings], shown: Iterable[Readback]) -> None:
    """Load the records of declarations that no template in db/ holds: those of subclasses outside this package.

    Raises
    ------
    ConfigError
        Two of them have one name.
    """
    there = {info.name.removeprefix(prefix) for info in records()}
    texts = [setting_text(one) for one in setpoints(kind).values() if not {one.record, f"{one.record}_RBV"} & there]
    texts += [shown_text(one, one.of, saved=one.saved) for one in shown if one.record not in there]
    if not texts:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "declared.template"
        path.write_text("\n".join(texts), encoding="utf-8")
        load_template(path, prefix)


def main() -> int:
    """Write the files."""
    for group, text in templates(IocSettings, readbacks()).items():
        (DB_FOLDER / f"{group}_declared.template").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
