"""The IOC of a cluster: sums what its consumers report."""
