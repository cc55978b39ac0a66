"""A data set and its split come back from a folder of arrays as they were, and mapped."""

import dataclasses
import mmap

import numpy as np
import pytest

from pyro_cvae.data.mapped import read_mapped, write_mapped
from pyro_cvae.data.simulated import simulated, simulated_stars
from pyro_cvae.data.splits import Split, nothing_held_out, per_user

SIZE = {"n_users": 30, "n_items": 40, "n_words": 50, "n_factors": 3}


def owner(values: np.ndarray) -> object:
    """What the memory of an array belongs to."""
    while isinstance(values, np.ndarray) and values.base is not None:
        values = values.base
    return values


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize("make", [simulated, simulated_stars])
def test_all_of_it_is_there_again(make, held_out, tmp_path):
    dataset = dataclasses.replace(make(**SIZE), titles=np.array([f"title {n}" for n in range(40)], object))
    split = per_user(dataset, 5, 0) if held_out else nothing_held_out(dataset)
    tuning = np.arange(30) < 3
    split = Split(split.train, split.test, split.test if held_out else None, tuning, split.protocol)
    write_mapped(dataset, split, tmp_path)
    again, split_again = read_mapped(tmp_path)
    assert again.fingerprint() == dataset.fingerprint() and again.name == dataset.name
    assert split_again.fingerprint() == split.fingerprint() and split_again.protocol == split.protocol
    assert isinstance(owner(split_again.train.users), mmap.mmap)
    assert type(split_again.train.users) is np.ndarray


def test_what_is_written_into_mapped_pairs_stays_here(tmp_path):
    dataset = simulated(**SIZE)
    write_mapped(dataset, nothing_held_out(dataset), tmp_path)
    first, _ = read_mapped(tmp_path)
    first.interactions.ratings[:] = 7
    assert read_mapped(tmp_path)[0].fingerprint() == dataset.fingerprint()
