"""The soak: an IOC under random faults for a long time, with a check after each. `ptychostream bench soak`."""
