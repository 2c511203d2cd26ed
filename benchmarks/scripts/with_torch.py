"""Scores the first ROWS of a file of logits with PyTorch: LOGITS TARGETS ROWS."""

import json
import sys
import time

import numpy as np
import torch

BLOCK = 64  # rows: torch is the faster for large ones

logits = np.load(sys.argv[1], mmap_mode="c")  # torch.from_numpy wants it writable
targets = torch.from_numpy(np.load(sys.argv[2]))
rows = int(sys.argv[3])
start = time.perf_counter()
nll = entropy = 0.0
correct = 0
with torch.inference_mode():
    for first in range(0, rows, BLOCK):
        part = slice(first, min(first + BLOCK, rows))
        x, y = torch.from_numpy(logits[part]).float(), targets[part]
        log_p = torch.log_softmax(x, -1)
        nll -= log_p.gather(-1, y[:, None]).sum().item()
        entropy -= (log_p.exp() * log_p).sum(-1).sum().item()
        correct += (x.argmax(-1) == y).sum().item()
found = {"mean_nll_nats": nll, "mean_entropy_nats": entropy, "accuracy": correct}
seconds = time.perf_counter() - start
print(json.dumps({name: value / rows for name, value in found.items()} | {"seconds": seconds}))
