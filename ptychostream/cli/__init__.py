"""The one command line. Each command is a module of this package, imported only when it is asked for.

A command module has `HELP: str`, `add_arguments(parser)` and `run(arguments) -> int`, and imports
nothing heavy at its top: the process it starts is imported in `run`.
"""
