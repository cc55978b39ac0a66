"""The cost model of sweeps by workers finds the constants of times that were made with it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.study.cost import Constants, Size, constants
from inference.kinds import Gather

SIZES = [
    Size(users, items, ratings, 50, w) for users, items, ratings in ((1e4, 2e3, 1e5), (2e3, 2e3, 1e5)) for w in (1, 2)
]


@pytest.mark.parametrize("family", ["point", "diagonal", "full"])
def test_constants_are_found_and_foretell_other_sizes(family: str) -> None:
    planted = Constants(3e-7, 2e-5, 1e-9)
    found = constants([(size, planted.seconds(size, family)) for size in SIZES], family)
    other = Size(1e8, 1e7, 1e9, 50, 64)
    assert found.seconds(other, family) == pytest.approx(planted.seconds(other, family), rel=1e-6)


@pytest.mark.parametrize("family", ["point", "diagonal", "full"])
def test_more_workers_compute_less_each_and_one_receives_nothing(family: str) -> None:
    one, many = (Size(1e6, 1e5, 1e7, 50, workers) for workers in (1, 8))
    assert one.counts(family)[2] == 0 < many.counts(family)[2]
    assert many.counts(family)[0] == one.counts(family)[0] / 8 and many.memory(family) < one.memory(family)


def test_noise_makes_no_constant_negative() -> None:
    found = constants([(size, 1.0 + 0.1 * n) for n, size in enumerate(SIZES)], "point")
    assert min(found.cell, found.row, found.byte) >= 0


@pytest.mark.parametrize("family", ["point", "diagonal"])
def test_those_needed_are_fewer_and_of_many_workers_few(family: str) -> None:
    def asked(workers: int, gather: Gather) -> Size:
        return Size(1e8, 1e7, 1e9, 50, workers, gather)

    assert asked(1, "needed").counts(family) == asked(1, "all").counts(family)
    shares = [
        asked(workers, "needed").counts(family)[2] / asked(workers, "all").counts(family)[2] for workers in (2, 64)
    ]
    assert 0.99 < shares[0] < 1 and shares[1] < 0.3
    saved = asked(64, "all").memory(family) - asked(64, "needed").memory(family)
    rows_of_all_users = 4 * 50 * (2 if family == "diagonal" else 1) * 1e8
    assert 0.7 * rows_of_all_users < saved < rows_of_all_users, "what both hold, cells and items, cannot be saved"


def test_the_share_that_is_needed_is_that_of_random_pairs() -> None:
    size = Size(20_000, 500, 60_000, 4, 5, "needed")
    owners = np.random.default_rng(0).integers(5, size=(20_000, 3))
    assert size.got == pytest.approx(np.mean([(owners == w).any(1).sum() for w in range(5)]), rel=0.02)
