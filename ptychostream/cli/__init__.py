"""The command line. Each command is a module of this package, which is imported when the command is used.

A command module has `add_arguments(parser)` and `run(arguments) -> int`. What it needs is imported in `run`, so that
`ptychostream --help` stays fast. Its one line of help is in `ptychostream.cli.main.COMMANDS`.
"""

from __future__ import annotations

from ptychostream.cli.parts import finite

__all__ = ["finite"]
