"""What must last: an IOC under random faults (`ptychostream bench soak`), the agent over thousands of scans."""
