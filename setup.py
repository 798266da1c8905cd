"""The one part that is compiled: the monitor of detector images, `ptychostream/pva/_array_monitor.cpp`.

Built where pvxslibs, epicscorelibs and a C++ compiler are there when the package is built. Otherwise the package is
pure Python, and images are received through p4p.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup

# A symbol with std::string as GCC had it before version 5, and as the wheels for manylinux2014 still have it.
_OLD_STRING = b"5Value6lookupERKSs"


def extensions() -> list[Extension]:
    """The extension, or nothing where it cannot be built."""
    found = [Path(spec.origin).parent for name in ("pvxslibs", "epicscorelibs") if (spec := find_spec(name))]
    libraries = list((found[0] / "lib").glob("libpvxs.so.*")) if len(found) == 2 else []
    compiler = (sysconfig.get_config_var("CXX") or "c++").split()[0]
    if sys.platform != "linux" or not libraries or shutil.which(compiler) is None:
        return []
    return [
        Extension(
            "ptychostream.pva._array_monitor",
            ["ptychostream/pva/_array_monitor.cpp"],
            depends=["ptychostream/pva/_array_update.hpp"],
            include_dirs=[str(folder / "include") for folder in found],
            define_macros=[("_GLIBCXX_USE_CXX11_ABI", "0" if _OLD_STRING in libraries[0].read_bytes() else "1")],
            # No fused multiply-add: a time stamp is to be the same double as in Python.
            extra_compile_args=["-std=c++11", "-O2", "-g0", "-ffp-contract=off"],
            extra_link_args=[str(libraries[0]), "-Wl,-rpath,$ORIGIN/../../pvxslibs/lib"],
            optional=True,
        )
    ]


setup(ext_modules=extensions())
