"""Every file that follows from the records, by its name."""

from __future__ import annotations

from pathlib import Path

from ptychostream.opi.alarms import alarm_tree
from ptychostream.opi.archive import archive_list
from ptychostream.opi.database import beamline, database
from ptychostream.opi.group_screens import SCREENS, beamline_screen, group_screen
from ptychostream.opi.image_screen import image_screen
from ptychostream.opi.main_screen import main_screen

PREFIX = "ptycho:NN1:"
"""Of the committed files."""
FOLDER = Path(__file__).parent
"""Where the files are committed."""


def screens() -> dict[str, str]:
    """The screens."""
    records = database()
    titles = {"images.bob": "Images", **{file: one.title for file, one in SCREENS.items()},
              "beamline.bob": "Simulated beamline"}  # fmt: skip
    made = {
        "main.bob": main_screen(records, titles),
        "images.bob": image_screen(records),
        **{file: group_screen(one, records) for file, one in SCREENS.items()},
        "beamline.bob": beamline_screen(beamline()),
    }
    return {file: screen.xml() for file, screen in made.items()}


def files(prefix: str = PREFIX) -> dict[str, str]:
    """Text of each file by its name; `prefix` stands before records where macros are not possible."""
    return {
        **screens(),
        "alarms.xml": alarm_tree(prefix),
        "archive.txt": archive_list(database().values(), prefix),
    }
