"""NTNDArrays over PV Access, built and read. Imported by plugins, ioc and sim; never by the library or the agent."""
