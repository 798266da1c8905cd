"""Starting, restarting and stopping programs; niceness, free ports, and what processor there is."""
