"""The versions in constraints.txt: write them, check the environment against them, say what is outdated.

python .ci/constraints.py write      resolve anew with every python3.N on PATH, and write constraints.txt
python .ci/constraints.py check      compare constraints.txt with the environment; status 1 if they differ
python .ci/constraints.py outdated   say which versions `write` would change for this Python
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import operator
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from hashes import CONSTRAINTS, ROOT, extras
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from setup_environment import CUDA_PACKAGES

MINORS = (10, 11, 12, 13)
"""The Python versions 3.N that the project supports."""
HELD = {"torch": ("2.13.0", "the figures in docs/results and of the demo were measured with it")}
"""Versions that do not follow the index, and why."""
NEVER_NAMED = {"pip", "ptychostream"}
HEADER = "# Versions that install together, for {}. `make constraints` writes this file: do not edit it."
Versions = dict[str, str]


def is_named(name: str) -> bool:
    return name not in NEVER_NAMED and not name.startswith(CUDA_PACKAGES)


def from_report(report: str) -> Versions:
    """The versions in pip's installation report, without the build's label (`2.13.0`, not `2.13.0+cpu`)."""
    found = [item["metadata"] for item in json.loads(report)["install"]]
    versions = {canonicalize_name(m["name"]): Version(m["version"]).public for m in found}
    return {name: version for name, version in versions.items() if is_named(name)}


def marker(first: int, last: int, minors: tuple[int, ...]) -> str:
    """The environment marker for Python 3.`first` to 3.`last`, empty if that is all of `minors`."""
    after = minors[minors.index(last) + 1 :]
    below = [f'python_version < "3.{after[0]}"'] if after else []
    above = [f'python_version >= "3.{first}"'] if first != minors[0] else []
    if first == last and below and above:
        return f'python_version == "3.{first}"'
    return " and ".join(above + below)


def constraint_lines(resolved: dict[int, Versions]) -> list[str]:
    """One line for each package and each run of Python versions that agree about it."""
    minors = tuple(sorted(resolved))
    lines = []
    for name in sorted(set().union(*resolved.values())):
        versions = [(resolved[minor].get(name), minor) for minor in minors]
        for version, group in itertools.groupby(versions, operator.itemgetter(0)):
            run = [minor for _version, minor in group]
            if version is not None:
                when = marker(run[0], run[-1], minors)
                lines.append(f"{name}=={version}" + (f"; {when}" if when else ""))
    return lines


def parse(text: str) -> Versions:
    """The versions that apply to this Python and this machine."""
    requirements = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    applying = [r for r in requirements if r.marker is None or r.marker.evaluate()]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in applying}


def differences(named: Versions, installed: Versions, optional: set[str]) -> list[str]:
    """How the constraints and an environment differ, one line each.

    Args:
        named: Versions of the constraints that apply here.
        installed: Versions of the environment.
        optional: Names that may be absent from the environment, because an extra brings them.
    """
    found = [f"{name} {installed[name]} is installed and not named" for name in sorted(installed.keys() - named)]
    found += [f"{name} is named and not installed" for name in sorted(named.keys() - installed - optional)]
    for name in sorted(named.keys() & installed):
        if Version(named[name]) != Version(Version(installed[name]).public):
            found.append(f"{name} {installed[name]} is installed, {named[name]} is named")
    return found


def installed_versions() -> Versions:
    found = {canonicalize_name(d.name): d.version for d in importlib.metadata.distributions()}
    return {name: version for name, version in found.items() if is_named(name)}


def resolve(python: str) -> Versions:
    """Ask pip, running in `python`, for the newest versions that install together. Nothing is installed."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as held:
        held.write("".join(f"{name}=={version}\n" for name, (version, _why) in HELD.items()))
        held.flush()
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--report", "-", "-c", held.name, f"{ROOT}[{','.join(extras())}]"]
        return from_report(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def interpreters() -> dict[int, str]:
    """The commands python3.N on PATH that run."""
    found = {}
    for minor in MINORS:
        path = shutil.which(f"python3.{minor}")
        if path and subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            found[minor] = path
    return found


def write() -> int:
    pythons = interpreters()
    missing = [f"python3.{minor}" for minor in MINORS if minor not in pythons]
    if missing:
        print(f"not on PATH: {', '.join(missing)}. The constraints must hold for all of them.", file=sys.stderr)
        return 1
    with ThreadPoolExecutor() as pool:
        resolved = dict(zip(pythons, pool.map(resolve, pythons.values()), strict=True))
    lines = constraint_lines(resolved)
    header = HEADER.format(f"Python 3.{MINORS[0]} to 3.{MINORS[-1]}")
    held = [f"# {name} is held at {version}: {why}." for name, (version, why) in HELD.items()]
    CONSTRAINTS.write_text("\n".join([header, *held, *lines]) + "\n", encoding="utf-8")
    print(f"constraints.txt: {len(lines)} lines")
    return 0


def check() -> int:
    named, installed = parse(CONSTRAINTS.read_text(encoding="utf-8")), installed_versions()
    ours = [Requirement(line) for line in importlib.metadata.requires("ptychostream") or []]
    found = differences(named, installed, {canonicalize_name(r.name) for r in ours if "extra" in str(r.marker)})
    print("\n".join(found) or f"the environment's {len(installed)} packages are those that constraints.txt names")
    if found:
        print("remedy: `make clean install` for the environment, `make constraints` for the file", file=sys.stderr)
    return 1 if found else 0


def outdated() -> int:
    named, newest = parse(CONSTRAINTS.read_text(encoding="utf-8")), resolve(sys.executable)
    changed = [
        f"{n}: {named.get(n, 'not named')}, newest {newest[n]}" for n in sorted(newest) if named.get(n) != newest[n]
    ]
    print("\n".join(changed) or "no version is outdated")
    print("".join(f"{name} is held at {version}: {why}\n" for name, (version, why) in HELD.items()), end="")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = {"write": write, "check": check, "outdated": outdated}
    parser.add_argument("command", choices=commands)
    return commands[parser.parse_args().command]()


if __name__ == "__main__":
    sys.exit(main())
