"""The soak, `ptychostream bench soak`: an IOC runs under random faults for a long time, with a check after each."""
