"""The benchmarks run, and measure programs that compute the same thing."""

import math

import numpy as np
import pytest
import torch

from benchmarks import best, epoch, growth, sweeps
from benchmarks.study.turns import in_turns, ratio
from inference.algorithms.cells import BLOCK_BYTES
from models.observations import RatingColumns


@pytest.fixture
def columns() -> RatingColumns:
    """Six items and nine users; the last item has no ratings."""
    indptr, users = torch.tensor([0, 3, 4, 8, 9, 12, 12]), torch.tensor([0, 4, 8, 1, 0, 2, 3, 5, 7, 4, 6, 8])
    return RatingColumns(indptr, users, torch.ones(12), torch.ones(12), indptr.diff() > 0, 9)


@pytest.fixture
def two_threads(threads):
    torch.set_num_threads(2)


@pytest.mark.slow
def test_package_and_dense_peer_agree_and_are_measured(capsys):
    sizes = {"users": 30, "items": 80, "words": 60, "pairs": 200, "words-per-item": 8, "epochs": 1, "subsample": 20}
    rows = epoch.main([f"--{name}={size}" for name, size in sizes.items()])
    assert [(row["mode"], row["variant"]) for row in rows] == [
        (mode, variant) for mode in ("map", "bayes") for variant in epoch.VARIANTS
    ]
    for row in rows:
        assert row["seconds"] > 0 and row["peak_mib"] > 50 and row["error"] < epoch.TOLERANCE
        assert ("seconds_ratio" in row) == (row["variant"] != "dense")
    printed = capsys.readouterr().out
    assert "times the time of drawn words (at least 4)" in printed
    assert "30 users, 80 items, 60 words, 200 pairs, 8.0 distinct words an item" in printed


@pytest.mark.usefixtures("two_threads")
def test_sweeps_and_rivals_are_timed_in_turns(columns):
    pytest.importorskip("implicit")
    rows = sweeps.sweeps(columns, turns=2, n_factors=3)
    assert [row["variant"] for row in rows] == [*sweeps.FAMILIES, *sweeps.RIVALS]
    for row in rows:
        assert row["seconds"] > 0
        for rival in sweeps.RIVALS:
            assert (row[f"over {rival}"] == 1) == (row["variant"] == rival)
    assert all(name in sweeps.FAMILIES and rival in sweeps.RIVALS for name, (rival, _) in sweeps.TARGETS.items())


def test_a_sweep_goes_on_from_the_one_before(columns, monkeypatch):
    """A sweep that began anew each time would never pay for the other side's covariances."""
    given, half_step = [], sweeps.half_step

    def spy(cells, other, *rest, **named):
        given.append(other.is_point)
        return half_step(cells, other, *rest, **named)

    monkeypatch.setattr(sweeps, "half_step", spy)
    timer = sweeps.ours(columns, "bayes, full", n_factors=3)
    assert timer() > 0 and timer() > 0
    assert given == [True, False, False, False]


def test_an_iteration_of_the_rival_goes_on_from_the_one_before(columns, monkeypatch):
    als = pytest.importorskip("implicit.cpu.als")
    seen, fit = [], als.AlternatingLeastSquares.fit

    def spy(self, *args, **kwargs):
        fit(self, *args, **kwargs)
        seen.append(self.user_factors.copy())

    monkeypatch.setattr(als.AlternatingLeastSquares, "fit", spy)
    timer = sweeps.implicit(columns, use_cg=False, n_factors=3)
    for _ in range(30):
        assert timer() > 0
    assert np.abs(seen[0] - seen[1]).max() > 0.1 and np.abs(seen[-1] - seen[-2]).max() < 0.01


def test_first_turn_is_not_counted():
    rounds = {"a": iter(range(9)), "b": iter(range(10, 19))}
    laps = in_turns({name: lambda it=it: float(next(it)) for name, it in rounds.items()}, 3)
    assert laps == {"a": [1.0, 2.0, 3.0], "b": [11.0, 12.0, 13.0]}
    assert ratio([2.0, 9.0, 8.0], [1.0, 3.0, 1.0]) == 3.0


@pytest.mark.usefixtures("two_threads")
def test_lengths_are_timed_by_both_solvers():
    rows = sweeps.lengths(4, turns=1, n_cells=40, n_others=10)
    assert [row["cells a row"] for row in rows] == [max(1, round(4 * share)) for share in sweeps.LENGTHS]
    assert all(row["woodbury"] > 0 and row["cholesky"] > 0 and row["woodbury over cholesky"] > 0 for row in rows)
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_sizes_of_blocks_are_timed_and_restored(columns):
    before = dict(BLOCK_BYTES)
    rows = sweeps.blocks(columns, turns=1, n_factors=3)
    assert [row["MiB"] * 2**20 for row in rows] == list(sweeps.BLOCKS)
    assert all(row[name] > 0 for row in rows for name in ("map", "bayes, diagonal", "bayes, full"))
    assert before == BLOCK_BYTES and torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_threads_are_timed_and_restored(columns):
    rows = sweeps.threads(columns, turns=1, n_factors=3)
    assert len(rows) == 3 and rows[0]["over one thread"] == 1 and all(row["seconds"] > 0 for row in rows)
    assert torch.get_num_threads() == 2


def test_slope_is_the_exponent():
    rows = [{"ratings": n, "seconds": 3 * n**1.25} for n in (10, 100, 1000)]
    assert math.isclose(growth.slope(rows, "seconds"), 1.25)


@pytest.mark.slow
def test_growth_measures_each_size_in_a_process_of_its_own(tmp_path, capsys):
    plot = tmp_path / "growth.png"
    sizes, families = ["--ratings", "1e3", "4e3"], ["--families", "map", "bayes, full"]
    how = ["--factors", "4", "--seconds", "0", "--threads", "1", "--limit", "90", "--plot", str(plot)]
    rows = growth.main([*sizes, *families, *how])
    assert [(row["family"], row["ratings"], row["users"], row["items"]) for row in rows] == [
        ("map", 1000, 100, 20), ("bayes, full", 1000, 100, 20), ("map", 4000, 400, 80), ("bayes, full", 4000, 400, 80)
    ]  # fmt: skip
    assert all(row["seconds"] > 0 and row["gib"] > row["above_gib"] > 0 and row["longest"] > 10 for row in rows)
    assert plot.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "the largest that fits in 90 GiB: 4,000 ratings of 400 users and 80 items" in printed


def test_growth_leaves_out_what_would_not_fit(capsys):
    rows = [{"family": "map", "ratings": 1000, "above_gib": 0.5}]
    assert growth.fits(rows, "map", 2000, limit=1.0) and growth.fits(rows, "bayes, full", 10**9, limit=1.0)
    assert not growth.fits(rows, "map", 2001, limit=1.0)
    assert capsys.readouterr().out == "map: 2,001 ratings would need more than 1 GiB: left out\n"


def test_growth_refuses_sizes_without_enough_pairs(capsys):
    with pytest.raises(SystemExit, match="2"):
        growth.main(["--ratings", "200"])
    assert "--ratings: below 1,000" in capsys.readouterr().err


def test_kernels_and_torch_are_timed_in_turns(columns):
    pytest.importorskip("numba")
    rows = sweeps.kernels(columns, turns=1, n_factors=3)
    assert [row["variant"] for row in rows] == list(sweeps.FAMILIES)
    assert all(row["numba over torch"] == pytest.approx(row["numba"] / row["torch"]) for row in rows)


def test_the_benchmark_of_the_preset_compares_turn_by_turn(capsys):
    """Ratios are medians over turns, not of medians; recall is told where it is most apart."""
    seconds, recall = {best.HERE: (4.0, 10.0, 6.0), "old": (10.0, 10.0, 20.0)}, {best.HERE: 0.3, "old": 0.301}
    laps = {
        name: [
            {"seconds": s, "CPU seconds": s, "peak MiB": 1.0, "recall@50": recall[name], "recall@300": 0.5 + s / 1e4}
            for s in found
        ]
        for name, found in seconds.items()
    }
    here, old = best._rows(laps)
    assert (here["seconds, ratio"], old["seconds, ratio"]) == (0.4, 1.0)
    assert here["recall@50, apart"] == pytest.approx(-0.001) and here["recall@300, apart"] == pytest.approx(-0.0014)
    best._verdicts([here | {"recall@50, apart": -0.0021}, old])
    printed = capsys.readouterr().out
    assert "met: this checkout over old: 0.40 of its CPU seconds (at most 0.5)" in printed
    assert "MISSED: recall@50: -0.0021" in printed and "met: recall@300" in printed


def test_the_files_of_another_commit_are_there_for_a_while():
    with best._checkout("HEAD") as folder:
        assert (folder / "inference" / "coordinate.py").is_file()
    assert not folder.exists()
