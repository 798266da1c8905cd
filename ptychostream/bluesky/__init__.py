"""The IOC in bluesky: devices of ophyd-async, and plans that look at the picture. It needs the extra `bluesky`."""
