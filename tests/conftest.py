"""pvapy first: a process that imports it after p4p or softioc may crash when it ends, and tests import both."""

import pvaccess  # noqa: F401
