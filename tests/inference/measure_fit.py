"""Prints the peak memory of a fit above that of a small one, in bytes: METHOD USERS ITEMS WORDS OPTIONS."""

import json
import sys
from pathlib import Path

import numpy as np
import scipy.sparse as sp

import inference
from pyro_cvae.data.content import Content
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.simulated import simulated


def status(name: str) -> int:
    """A line of this process's status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


method, (n_users, n_items, n_words), asked = sys.argv[1], map(int, sys.argv[2:5]), json.loads(sys.argv[5])
options = {name: tuple(value) if isinstance(value, list) else value for name, value in asked.items()}
users = np.repeat(np.arange(n_users), 5)
items = (7 * users + 13 * np.tile(np.arange(5), n_users)) % n_items
pairs = Interactions.from_arrays(users, items, n_users=n_users, n_items=n_items)
counts = sp.random_array(
    (n_items, n_words), density=20 / n_words, format="csr", rng=0, data_sampler=lambda size: np.ones(size)
)
dataset = Dataset("made", pairs, Content(sp.csr_matrix(counts)), np.arange(n_users), np.arange(n_items))
inference.fit(simulated(), method=method, factors=2, hidden=(3,), epochs=1, pretrain_epochs=1)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
inference.fit(dataset, method=method, **options)
print(status("VmHWM") - before)
