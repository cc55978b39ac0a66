"""The cost model of sweeps by workers finds the constants of times that were made with it."""

from __future__ import annotations

import pytest

from benchmarks.study.cost import Constants, Size, constants

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
