"""hashes.txt: the sha256 of every file of every version that constraints.txt names, and of the packages of CUDA.

    python .ci/hashes.py write      ask the package index, through uv, for the hashes; writes hashes.txt
    python .ci/hashes.py check      say which lines of constraints.txt have no hash; status 1 if there are any

Each line is `name==version --hash=sha256:… --hash=sha256:…`. The set-up reads it (`.ci/setup_environment.py`), so this
module uses the standard library only.
"""

from __future__ import annotations

import argparse
import configparser
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HASHES = ROOT / "hashes.txt"
CONSTRAINTS = ROOT / "constraints.txt"
PYTHONS = ("3.10.13", "3.11.7", "3.12.1", "3.13.0")
"""The Python versions that are resolved for."""
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")
NOT_RESOLVED = {"tensorrt"}
"""Extras that install only beside an NVIDIA driver."""
TOOLS = ("pip",)
"""What the set-up installs besides."""
HEADER = "# sha256 of the files of each version. `make constraints` writes this file: do not edit it."
Pin = tuple[str, str]


def canonical(name: str) -> str:
    """A package's name in one spelling."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse(text: str) -> dict[Pin, list[str]]:
    """The hashes of each version, from pip's requirements format with or without continued lines."""
    found: dict[Pin, list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        match = re.match(r"([A-Za-z0-9][\w.-]*)==([^\s;]+)", line)
        if match:
            pin = canonical(match[1]), match[2]
            found[pin] = sorted({*found.get(pin, []), *re.findall(r"--hash=(sha256:[0-9a-f]{64})", line)})
    return found


def line_of(pin: Pin, hashes: list[str]) -> str:
    """The line of a version."""
    return f"{pin[0]}=={pin[1]} " + " ".join(f"--hash={one}" for one in hashes)


def named(constraints: str) -> list[Pin]:
    """The versions that constraints.txt names, for every Python."""
    return list(parse(constraints))


def without_hash(constraints: str, hashes: str) -> list[Pin]:
    """The versions that are named and have no hash."""
    known = parse(hashes)
    return [pin for pin in named(constraints) if not known.get(pin)]


def extras() -> list[str]:
    setup = configparser.RawConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return [name for name in setup["options.extras_require"] if name not in NOT_RESOLVED]


def resolve(uv: Path, python: str, platform: str) -> dict[Pin, list[str]]:
    """What uv resolves for one Python and one platform under constraints.txt, with the hashes of all its files."""
    words = [str(uv), "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
    words += ["--python-version", python, "--python-platform", platform, "-c", str(CONSTRAINTS), "setup.py", "-"]
    words += [word for extra in extras() for word in ("--extra", extra)]
    done = subprocess.run(words, check=True, cwd=ROOT, input="\n".join(TOOLS), capture_output=True, text=True)
    return parse(done.stdout)


def write() -> int:
    found: dict[Pin, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "uv"], check=True)
        for platform in PLATFORMS:
            for python in PYTHONS:
                try:
                    resolved = resolve(Path(folder) / "bin" / "uv", python, platform)
                except subprocess.CalledProcessError as error:
                    print(f"Python {python}, {platform}: {error.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                    if platform == PLATFORMS[0]:
                        return 1
                    continue
                for pin, hashes in resolved.items():
                    found[pin] = sorted({*found.get(pin, []), *hashes})
    HASHES.write_text("\n".join([HEADER, *(line_of(pin, found[pin]) for pin in sorted(found))]) + "\n")
    print(f"hashes.txt: {len(found)} versions, {sum(map(len, found.values()))} files")
    return check()


def check() -> int:
    missing = without_hash(CONSTRAINTS.read_text(encoding="utf-8"), HASHES.read_text(encoding="utf-8"))
    print("\n".join(f"{name} {version} has no hash" for name, version in missing) or "every version has its hashes")
    return 1 if missing else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = {"write": write, "check": check}
    parser.add_argument("command", choices=commands)
    return commands[parser.parse_args().command]()


if __name__ == "__main__":
    sys.exit(main())
