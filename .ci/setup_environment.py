"""Make a virtual environment and install into it, with the build of torch that fits the machine.

    python .ci/setup_environment.py VENV [--torch auto|cpu|cuda|index|none] PIP_ARGUMENT...

On Linux the package index gives torch with CUDA: about 20 packages that do nothing without an NVIDIA driver. This
script uses the standard library only, because it runs before anything is installed.

The versions are those of constraints.txt, and each file that is installed has a hash of hashes.txt. Only torch's builds
with a label, such as 2.13.0+cpu, have none there: they come from PyTorch's index.
"""

from __future__ import annotations

import argparse
import ctypes.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hashes import CONSTRAINTS, HASHES, Pin, canonical, line_of, parse

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own index of builds without CUDA."""
ANSWER_S = 3.0
CUDA_PACKAGES = ("nvidia-", "cuda-", "triton")
"""Prefixes of the names of the packages that only torch's CUDA build needs."""
CUDA_FOLDERS = ("torch", "torchgen", "functorch", "nvidia", "cuda", "triton")
TORCH = ("auto", "cpu", "cuda", "index", "none")
PROJECT = "ptychostream"


class SetupError(Exception):
    """The environment cannot be made as asked. The text names the remedy."""


@dataclass(frozen=True)
class Choice:
    """Where torch comes from, and why: `cpu` is PyTorch's CPU index, `index` the package index."""

    source: str
    reason: str
    may_fall_back: bool = False


def choose(asked: str, linux: bool, driver: bool, answers: Callable[[], bool]) -> Choice:
    """Choose the source of torch.

    Args:
        asked: `auto` to decide by the machine. `cpu` takes PyTorch's CPU index, `cuda` and `index` the package
            index.
        linux: Whether this is Linux. The package index gives builds without CUDA for every other system.
        driver: Whether the machine has an NVIDIA driver.
        answers: Asks PyTorch's CPU index. It is called only if the answer matters.
    """
    if asked == "cpu":
        return Choice("cpu", "TORCH=cpu")
    if asked != "auto":
        return Choice("index", f"TORCH={asked}")
    if not linux:
        return Choice("index", "the package index has no CUDA build for this system")
    if driver:
        return Choice("index", "this machine has an NVIDIA driver")
    if answers():
        return Choice("cpu", "this machine has no NVIDIA driver", may_fall_back=True)
    return Choice("index", f"no NVIDIA driver, but {CPU_INDEX} did not answer within {ANSWER_S:g} s")


def has_nvidia_driver() -> bool:
    """Whether the kernel module, the driver's tool or its library is here."""
    files = Path("/proc/driver/nvidia/version").exists()
    return files or shutil.which("nvidia-smi") is not None or ctypes.util.find_library("cuda") is not None


def index_answers(url: str = CPU_INDEX, seconds: float = ANSWER_S) -> bool:
    """Whether the index serves its page of torch within `seconds`, the look-up of its name included."""
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{url}/torch/", timeout=seconds) as response:
                if response.status == 200:
                    answered.set()
        except (OSError, ValueError):
            pass  # no network, no such host, or a refusal

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answered.is_set()


def is_wrong_build(asked: str, version: str, cuda: str) -> bool:
    """Whether the installed torch is not the build that was asked for by name."""
    return bool(version) and ((asked == "cpu" and bool(cuda)) or (asked == "cuda" and not cuda))


def describe(version: str, cuda: str, choice: Choice, torch_mb: float, all_mb: float, driver: bool) -> str:
    """Say which torch was installed, from where and why, and its share of the environment."""
    build = f"CUDA {cuda} build" if cuda else "CPU build"
    source = "PyTorch's CPU index" if choice.source == "cpu" else "the package index"
    text = f"torch {version}, {build}, from {source} ({choice.reason}): {torch_mb:.0f} MB of {all_mb:.0f} MB"
    if cuda and not driver:
        text += "\nNothing on this machine uses CUDA. `make install TORCH=cpu` takes the smaller build."
    return text


def megabytes(folder: Path) -> float:
    """The size of all files below `folder`, in units of 10^6 bytes."""
    return sum(f.lstat().st_size for f in folder.rglob("*") if not f.is_dir()) / 1e6


@dataclass(frozen=True)
class Environment:
    """A virtual environment and its pip."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def create(self) -> None:
        if not Path(self.python).exists():
            subprocess.run([sys.executable, "-m", "venv", str(self.folder)], check=True)
        newest = [pin for pin in parse(HASHES.read_text(encoding="utf-8")) if pin[0] == "pip"]
        self.hashed(hashed_lines(newest), "--quiet")

    def hashed(self, lines: list[str], *words: str) -> None:
        """Install these versions and no others; every file must have one of the hashes."""
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join(lines))
            file.flush()
            self.pip("install", "--require-hashes", "--no-deps", *words, "-r", file.name)

    def resolve(self, *words: str) -> list[Pin]:
        """What pip would install beside the project itself, under the constraints."""
        words = ("install", "--quiet", "--dry-run", "--report", "-", "-c", str(CONSTRAINTS), *words)
        done = subprocess.run([self.python, "-m", "pip", *words], check=True, stdout=subprocess.PIPE, text=True)
        found = [item["metadata"] for item in json.loads(done.stdout)["install"]]
        return [(canonical(one["name"]), one["version"]) for one in found if canonical(one["name"]) != PROJECT]

    def pip(self, *words: str) -> None:
        subprocess.run([self.python, "-m", "pip", *words], check=True)

    def ask(self, code: str) -> list[str]:
        """The lines that `code` prints in the environment, none if it fails."""
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=False)
        return done.stdout.splitlines() if done.returncode == 0 else []

    def torch(self) -> tuple[str, str]:
        """The installed torch's version and its version of CUDA; each is empty if there is none."""
        version, cuda = [*self.ask("import torch; print(torch.__version__); print(torch.version.cuda or '')"), "", ""][
            :2
        ]
        return version, cuda

    def remove_torch(self) -> None:
        """Uninstall torch and the packages that only its CUDA build needs."""
        names = self.ask("import importlib.metadata as m\nfor d in m.distributions(): print(d.name)")
        self.pip("uninstall", "--yes", "--quiet", *[n for n in names if n == "torch" or n.startswith(CUDA_PACKAGES)])

    def sizes(self) -> tuple[float, float]:
        """The megabytes of torch with its CUDA packages, and of everything that is installed."""
        packages = Path(self.ask("import sysconfig; print(sysconfig.get_path('purelib'))")[0])
        return sum(megabytes(packages / name) for name in CUDA_FOLDERS), megabytes(packages)


def hashed_lines(pins: list[Pin]) -> list[str]:
    """The requirements of these versions, with their hashes.

    Raises:
        SetupError: A version has no hash.
    """
    known = parse(HASHES.read_text(encoding="utf-8"))
    missing = [f"{name} {version}" for name, version in pins if not known.get((name, version))]
    if missing:
        raise SetupError(f"no hash is known of {', '.join(missing)}: write hashes.txt anew with `make constraints`")
    return [line_of(pin, known[pin]) for pin in pins]


def install(environment: Environment, asked: str, words: list[str]) -> Choice:
    """Install torch from the source that fits, then everything else from the package index.

    Raises:
        SetupError: If the installed build is not the one that was asked for by name, or a version has no hash.
        subprocess.CalledProcessError: If pip fails.
    """
    environment.create()
    if is_wrong_build(asked, *environment.torch()):
        environment.remove_torch()
    choice = choose(asked, sys.platform == "linux", has_nvidia_driver(), index_answers)
    if choice.source == "cpu":
        try:
            environment.pip("install", "-c", str(CONSTRAINTS), "--no-deps", "--index-url", CPU_INDEX, "torch")
        except subprocess.CalledProcessError:
            if not choice.may_fall_back:
                raise
            choice = Choice("index", f"no NVIDIA driver, but {CPU_INDEX} did not give torch")
    wanted = environment.resolve(*words)
    labelled = [f"{name}=={version}" for name, version in wanted if name == "torch" and "+" in version]
    environment.hashed(hashed_lines([pin for pin in wanted if f"{pin[0]}=={pin[1]}" not in labelled]))
    if labelled:
        print(f"set-up: {labelled[0]} is a build of PyTorch's index, of which no hash is known")
        environment.pip("install", "--no-deps", *labelled)
    environment.pip("install", "--no-deps", *words)
    version, cuda = environment.torch()
    if is_wrong_build(asked, version, cuda):
        found = f"CUDA {cuda}" if cuda else "no CUDA"
        raise SetupError(f"TORCH={asked}, but torch {version} has {found}: use TORCH=index, or another package index")
    return choice


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("venv", type=Path)
    parser.add_argument("--torch", choices=TORCH, default="auto")
    arguments, words = parser.parse_known_args(argv)
    environment = Environment(arguments.venv)
    began = time.monotonic()
    try:
        choice = install(environment, arguments.torch, words)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"set-up: this command failed: {' '.join(map(os.fspath, error.cmd))}", file=sys.stderr)
        return 1
    if arguments.torch != "none":
        print(describe(*environment.torch(), choice, *environment.sizes(), has_nvidia_driver()))
    print(f"set up in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
