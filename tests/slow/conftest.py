"""These tests run with two threads in each process, which shows what threads may break."""

import torch

torch.set_num_threads(2)
