"""A data set and its split in a folder of plain arrays, which processes of one machine map in place of reading tables.

What is mapped is in memory once for all of them, and the system may give these pages back when memory is short.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pyro_cvae.data import files
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.splits import Split
from pyro_cvae.trust import Trust, only_trusted

SCHEMA = 1


def write_mapped(dataset: Dataset, split: Split, folder: Path) -> None:
    """Write both into a folder, the pairs as arrays that can be mapped."""
    nobody = Interactions.from_arrays([], [], n_users=dataset.n_users, n_items=dataset.n_items)
    replace(dataset, interactions=nobody).save(folder)
    parts = {"all": dataset.interactions, "train": split.train, "test": split.test}
    parts |= {} if split.validation is None else {"validation": split.validation}
    for part, pairs in parts.items():
        for name, values in pairs.columns().items():
            files.write_npy(folder / f"{part}-{name}.npy", values)
    if split.tuning_users is not None:
        files.write_npy(folder / "tuning-users.npy", split.tuning_users)
    told = {part: {"n": len(pairs), "columns": list(pairs.columns())} for part, pairs in parts.items()}
    files.write_json(folder / "pairs.json", {"schema": SCHEMA, "protocol": split.protocol, "parts": told})


def read_mapped(folder: Path, trust: Trust = ()) -> tuple[Dataset, Split]:
    """What :func:`write_mapped` wrote; the pairs are mapped, and what is written into them stays in this process.

    ``trust`` are class paths of the caller's own that may be imported, such as that of a tokenizer.
    """
    with only_trusted(folder, trust):
        dataset = Dataset.load(folder)
    facts = files.read_json(folder / "pairs.json", SCHEMA)
    parts = {part: _pairs(dataset, folder, part, **about) for part, about in facts["parts"].items()}
    tuning = folder / "tuning-users.npy"
    users = np.load(tuning, allow_pickle=False) if tuning.exists() else None
    split = Split(parts["train"], parts["test"], parts.get("validation"), users, facts["protocol"])
    return replace(dataset, interactions=parts["all"]), split


def _pairs(dataset: Dataset, folder: Path, part: str, n: int, columns: list[str]) -> Interactions:
    found: dict[str, np.ndarray | None] = dict.fromkeys(("users", "items", "ratings", "confidences", "times"))
    for name in columns:
        path = folder / f"{part}-{name}.npy"
        found[name] = np.asarray(np.load(path, mmap_mode="c" if n else None, allow_pickle=False))
    return Interactions(**found, n_users=dataset.n_users, n_items=dataset.n_items)  # type: ignore[arg-type]
