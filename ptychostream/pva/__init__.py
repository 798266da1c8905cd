"""NTNDArrays over PV Access, built and read. Imported by plugins, ioc and sim; never by the library or the agent."""

# First of all that speak EPICS: after epicscorelibs, which p4p and softioc bring, the process dies at its end.
import pvaccess  # noqa: F401
