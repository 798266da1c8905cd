"""The EPICS database: templates, devices, access, autosave, preflight check."""
