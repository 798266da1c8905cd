"""The licences of what is installed, and a bill of materials.

    python .ci/licences.py check          name every package whose licence is not known to be fine; status 1 if any
    python .ci/licences.py list           name every package with its licence
    python .ci/licences.py sbom FILE      write the bill of materials (CycloneDX 1.6, JSON) of this environment

The bill of materials is made by CycloneDX's own tool, in an environment that is removed afterwards.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import PackageMetadata
from pathlib import Path

from hashes import canonical

FINE = (
    r"0BSD|Apache([ -]2\.0| License.*| Software License)?|BSD.*|3-Clause BSD License|BSL-1\.0|CC0-1\.0|EPICS.*|HPND|"
    r"ISC|LLVM-exception|MIT.*|MPL-2\.0|Mozilla Public License 2\.0.*|PSF-2\.0|Python Software Foundation License|"
    r"Public Domain|Unlicense|Unicode-3\.0|Zlib|.*opensource\.org/licenses/BSD-3-Clause"
)
"""Licences that ask for no more than their text and a name, or (MPL) for changes to their own files."""
KNOWN = {
    "docutils": "public domain and BSD; the GPL part is an Emacs mode that is not installed",
    "hdf5plugin": "MIT and BSD, its LICENSE says",
    "rosettasciio": "GPL 3: the optional extra `electron` alone brings it, and no other room imports it",
    "tensorrt-rtx-cu13-bindings": "NVIDIA's: the extra `tensorrt-build-test` alone, for tests",
    "tensorrt-rtx-cu13-libs": "NVIDIA's: the extra `tensorrt-build-test` alone, for tests",
}
"""Packages that were looked at, and why they are fine."""
KNOWN_PREFIXES = {"nvidia-": "NVIDIA's: torch's CUDA build alone", "cuda-": "NVIDIA's: torch's CUDA build alone"}
OURS = {"ptychostream"}
_CLASSIFIER = "License :: "
_NO_LICENCES = {"OSI Approved", "DFSG approved"}


def licences(metadata: PackageMetadata) -> list[str]:
    """The licences that a package's metadata give: the expression, else its classifiers, else the first line."""
    expression = metadata.get("License-Expression")
    if expression:
        return [part for part in re.split(r"[()\s]+(?:AND|WITH)[()\s]+|[()]", expression) if part]
    classifiers = [one for one in metadata.get_all("Classifier") or [] if one.startswith(_CLASSIFIER)]
    named = [one.split(" :: ")[-1] for one in classifiers if one.split(" :: ")[-1] not in _NO_LICENCES]
    return named or [(metadata.get("License") or "").strip().split("\n")[0]]


def why_not(name: str, found: Iterable[str]) -> str:
    """Why a package's licence is not known to be fine; empty: it is."""
    if name in KNOWN or name.startswith(tuple(KNOWN_PREFIXES)):
        return ""
    # of alternatives (OR) one has to be fine
    bad = [one for one in found if not any(re.fullmatch(FINE, each.strip()) for each in one.split(" OR "))]
    return f"{name}: {', '.join(one or 'no licence named' for one in bad)}" if bad else ""


def installed() -> dict[str, list[str]]:
    found = {}
    for distribution in importlib.metadata.distributions():
        name = canonical(distribution.name)
        if name not in OURS:
            found[name] = licences(distribution.metadata)
    return dict(sorted(found.items()))


def check() -> int:
    packages = installed()
    bad = [why for name, found in packages.items() if (why := why_not(name, found))]
    print("\n".join(bad) or f"the licences of {len(packages)} packages are known to be fine")
    if bad:
        print("remedy: look at the licence, and enter the package in .ci/licences.py with the reason", file=sys.stderr)
    return 1 if bad else 0


def show() -> int:
    for name, found in installed().items():
        print(f"{name}: {', '.join(found)}" + (f" ({KNOWN[name]})" if name in KNOWN else ""))
    return 0


def sbom(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "cyclonedx-bom>=7,<8"], check=True)
        words = ["environment", "--spec-version", "1.6", "--output-reproducible", "--of", "JSON", "-o", str(path)]
        subprocess.run([f"{folder}/bin/cyclonedx-py", *words, sys.executable], check=True)
    print(f"{path}: the {len(installed())} packages of {sys.prefix}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check")
    commands.add_parser("list")
    commands.add_parser("sbom").add_argument("file", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "sbom":
        return sbom(arguments.file)
    return check() if arguments.command == "check" else show()


if __name__ == "__main__":
    sys.exit(main())
