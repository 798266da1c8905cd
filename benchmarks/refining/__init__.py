"""The live refinement measured in a running IOC."""
