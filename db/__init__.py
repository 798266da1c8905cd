"""EPICS templates: the one source of every record."""
