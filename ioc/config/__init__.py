"""The configuration of the IOC and its setpoints."""
