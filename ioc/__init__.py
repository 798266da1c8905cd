"""The soft IOC."""
