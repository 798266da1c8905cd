"""The images that the IOC serves, saves and compares."""
