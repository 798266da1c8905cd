"""Programs killed with SIGKILL at random moments: what they had reported as done is still there."""
