"""The soft IOC.

pvaccess is imported here, before softioc or epicscorelibs can be: the other
way round the process dies with SIGSEGV at exit.
"""

import pvaccess  # noqa: F401
