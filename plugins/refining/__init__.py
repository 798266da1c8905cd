"""The live refinement: its thread, its budget, its probe."""
