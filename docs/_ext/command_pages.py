"""One page for each command of `ptychostream`, with every subcommand and option, from its argparse parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from ptychostream.cli.main import COMMANDS, build_parser


def pages() -> dict[str, str]:
    """commands/index.md and a page for each command."""
    rows = "\n".join(f"| [`ptychostream {name}`]({name}.md) | {text} |" for name, text in COMMANDS.items())
    entries = "\n".join(COMMANDS)
    index = f"""# Commands

`ptychostream -v COMMAND …` logs at debug level, with tracebacks. `ptychostream --version` prints the version. An error
that the user can act upon ends in one line that says what, where and the remedy, and in exit status 2.

| command | what it does |
|---|---|
{rows}

```{{toctree}}
:hidden:

{entries}
```
"""
    return {"commands/index.md": index, **{f"commands/{name}.md": page(name) for name in COMMANDS}}


def page(command: str) -> str:
    """The Markdown of one command's page."""
    parts = [f"# ptychostream {command}\n"]
    for words, parser in parsers(command):
        if words:
            parts.append(f"## {command} {' '.join(words)}\n")
        parts.append(_sentence(parser.description or "") + "\n")
        parts.append(f"```text\n{parser.format_usage().strip()}\n```\n")
        for group in parser._action_groups:
            actions = [action for action in group._group_actions if _is_shown(action)]
            if actions:
                parts.append(_table(group, actions))
    return "\n".join(parts)


def parsers(command: str) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """The command's parser, and those of its subcommands, each with the words that lead to it."""
    yield from _below((), _children(build_parser(command))[command])


def options(parser: argparse.ArgumentParser) -> list[str]:
    """Every option and argument that a parser knows, as the page shows it."""
    return [_name(action) for action in parser._actions if _is_shown(action)]


def _below(
    words: tuple[str, ...], parser: argparse.ArgumentParser
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    yield words, parser
    for name, child in _children(parser).items():
        if hasattr(child, "load"):  # a benchmark adds its options when it is asked for
            child.load()
        child.description = child.description or _help_of(parser, name)
        yield from _below((*words, name), child)


def _children(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _help_of(parser: argparse.ArgumentParser, name: str) -> str:
    """What the list of subcommands says of one of them."""
    lists = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    entries = (entry for action in lists for entry in action._choices_actions)
    return next((entry.help or "" for entry in entries if entry.dest == name), "")


def _is_shown(action: argparse.Action) -> bool:
    hidden = isinstance(action, argparse._SubParsersAction | argparse._HelpAction)
    return not hidden and action.help is not argparse.SUPPRESS


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest)
    metavar = " ".join(action.metavar) if isinstance(action.metavar, tuple) else action.metavar
    value = "" if action.nargs == 0 else f" {metavar or (action.dest.upper() if not action.choices else 'CHOICE')}"
    return ", ".join(action.option_strings) + value


def _table(group: argparse._ArgumentGroup, actions: list[argparse.Action]) -> str:
    titles = {"positional arguments": "Arguments", "options": "Options", "optional arguments": "Options"}
    title = titles.get(group.title or "", _sentence(group.title or "").rstrip("."))
    lines = [f"**{title}**", "", *([_sentence(group.description), ""] if group.description else [])]
    lines += ["| option | what it does | choices |", "|---|---|---|"]
    for action in actions:
        choices = ", ".join(f"`{choice}`" for choice in action.choices) if action.choices is not None else ""
        text = ((action.help or "") % {**vars(action), "prog": "ptychostream"}).replace("|", "\\|")
        lines.append(f"| `{_name(action)}` | {text} | {choices} |")
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""
