"""For the tests of the agent: such small networks gain nothing by more threads, and wait for each other."""

import torch

torch.set_num_threads(1)
