"""Files that survive a crash: atomic writes and checked HDF5."""
