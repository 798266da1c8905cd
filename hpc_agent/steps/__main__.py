"""`python -m ptychostream.hpc_agent.steps NAME ARGUMENTS.json RESULT.json`."""

import sys

from ptychostream.hpc_agent.steps.command import main

if __name__ == "__main__":
    sys.exit(main())
