"""The records of a sequencer that tells the agent of its scans."""

DATABASE = """
record(bo, "s:Complete") { field(ZNAM, "No") field(ONAM, "Yes") }
record(stringout, "s:ID") {}
record(lso, "s:File") { field(SIZV, "300") }
"""
