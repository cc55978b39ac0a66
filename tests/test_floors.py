"""What small fits must reach, whatever the seed (benchmarks/floors.py)."""

import pytest
from scipy.stats import binom

from benchmarks import seeds
from benchmarks.floors import FLOORS, Floor

N_SEEDS, ENOUGH = 6, 3
"""Seeds of each floor, and how many must pass: where 19 of 20 do, fewer pass with a probability below the rate."""


def test_the_number_of_seeds_suits_the_failure_rate(failure_rate):
    assert binom.cdf(ENOUGH - 1, N_SEEDS, seeds.LEAST_SHARE) < failure_rate


@pytest.mark.statistical
@pytest.mark.parametrize("name", FLOORS)
def test_enough_seeds_are_above_the_floor(name):
    floor = FLOORS[name]
    found = [floor.measure(seed) for seed in range(N_SEEDS)]
    assert sum(floor.passes(one) for one in found) >= ENOUGH, found


@pytest.mark.usefixtures("threads")
def test_the_table_counts_what_passes_goes_on_and_names_what_is_weak(tmp_path, monkeypatch, capsys):
    asked = []

    def measure(seed):
        asked.append(seed)
        return {"r": seed / 10, "s": 1.0}

    floors = {"good": Floor(measure, {"r": -1.0}, {"s": 1.0}), "weak": Floor(measure, {"r": 0.15})}
    monkeypatch.setattr(seeds, "FLOORS", floors)
    kept = tmp_path / "kept.jsonl"
    seeds.main(["--seeds", "4", "--only", "good", "--kept", str(kept)])
    assert asked == [0, 1, 2, 3] and "| good | 4 of 4 | r 0 / 0.15 (at least -1); s" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"fewer than 19 of 20 seeds pass: weak$"):
        seeds.main(["--seeds", "5", "--kept", str(kept)])
    assert asked == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4], "what was measured is not measured again"
    assert "| weak | 3 of 5 | r 0 / 0.2 (at least 0.15) |" in capsys.readouterr().out
