"""Atomic writes, HDF5 files that survive a crash of their writer, and checks of HDF5 files before they are read."""
