"""Steps that do what the test's arguments say, run as `ptychostream.hpc_agent.steps` is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ptychostream import errors
from ptychostream.hpc_agent.running.step_errors import pack_error


def main(name: str, arguments_path: str, result_path: str, _flag: str, progress_path: str) -> int:
    arguments = json.loads(Path(arguments_path).read_text())
    script = arguments.get("script") or arguments.get("options", {}).get("script", {})
    print(f"{name} begins", flush=True)
    Path(progress_path).write_text(json.dumps({"epoch": 1}))
    if script.get("deaf"):  # as what it starts will be
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "pids" in script:  # of this process and of one that it starts
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(script["pids"]).write_text(json.dumps([os.getpid(), child.pid]))
    if "once" in script and Path(script["once"]).exists():
        script = {}
    elif "once" in script:
        Path(script["once"]).touch()
    time.sleep(script.get("sleep", 0))
    if "error" in script:
        error = getattr(errors, script["error"])("it cannot be done", where="here", remedy="give up")
        Path(result_path).write_text(json.dumps(pack_error(error)))
        return 3
    if "kill" in script:
        os.kill(os.getpid(), signal.Signals[script["kill"]])
    if "crash" in script:
        raise RuntimeError(script["crash"])
    if script.get("silent"):
        return 0
    Path(progress_path).write_text(json.dumps({"epoch": 2}))
    told = {key: value for key, value in os.environ.items() if key.endswith("_NUM_THREADS") or key == "SLURM_JOB_ID"}
    result = {"step": name, "arguments": arguments, "environment": told}
    Path(result_path).write_text(json.dumps({**result, "reconstruction": "r.h5", "sha256": "0" * 64}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
