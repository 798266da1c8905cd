"""The name that users give to pvapy-hpc-consumer, found as pvapy finds it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_pvapy_makes_the_processor_from_its_class_path() -> None:
    code = (
        "import sys, ptychostream.plugins.consumer.consumer_wire\n"
        "assert 'pvaccess' not in sys.modules\n"
        "from pvapy.utility.objectUtility import ObjectUtility\n"
        "path = 'ptychostream.plugins.consumer.PtychoConsumer'\n"
        "made = ObjectUtility.createObjectInstanceFromClassPath(path, {'engine': {'name': 'None'}})\n"
        "assert callable(made.process) and made.objectIdField == 'uniqueId'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
