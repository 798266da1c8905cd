"""`python -m ptychostream`."""

import sys

from ptychostream.cli.main import main

sys.exit(main())
