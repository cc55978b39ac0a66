"""The benchmark of ratings alone: what is chosen on what, and what its rows say, on tiny data."""

import numpy as np
import pytest

from benchmarks import pmf


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(u, i, rng.integers(1, 6), 0) for u in range(30) for i in range(25) if rng.random() < 0.6]
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    lines += ["\t".join(map(str, row)) for row in rows]
    (tmp_path / "ml-100k.inter").write_text("\n".join(lines) + "\n")
    return tmp_path


def pairs(part):
    return set(zip(part.users[part.observed].tolist(), part.items[part.observed].tolist(), strict=True))


@pytest.mark.parametrize("kind", [pmf.Clicks, pmf.Stars])
def test_settings_are_chosen_on_training_ratings_alone(folder, kind):
    study = kind(folder, 1)
    known, sign = study.split(0), -1.0 if kind is pmf.Clicks else 1.0
    seen = []

    def make(split, settings):
        seen.append(pairs(split.test))

        assert pairs(split.train) <= pairs(known.train)
        return dict.fromkeys(study.metrics, sign * abs(settings["off"] - 2.0))

    study.models = {study.rival: (make, [{"off": 0.0}, {"off": 2.0}, {"off": 5.0}])}
    found = pmf.measure(study, 0)
    assert found[study.rival][study.metrics[0]] == 0.0
    assert all(part <= pairs(known.train) for part in seen[:3]) and seen[3] == pairs(known.test)
    assert not pairs(known.test) & pairs(known.train)


@pytest.mark.parametrize("kind", [pmf.Clicks, pmf.Stars])
def test_every_model_has_as_many_settings_and_runs(folder, kind):
    study = kind(folder, 1)
    grids = [grid for _, grid in study.models.values() if grid != [{}]]
    assert {len(grid) for grid in grids} == {12}
    split = study.split(0)
    for name, (make, grid) in study.models.items():
        if "implicit" in name:
            pytest.importorskip("implicit")
        if "surprise" in name:
            pytest.importorskip("surprise")
        metrics = make(split, grid[0])
        assert all(np.isfinite(metrics[metric]) for metric in study.metrics), name


def test_differences_are_paired(folder):
    study = pmf.Stars(folder, 1)
    found = [
        {name: {"RMSE": split + index * 0.1, "MAE": 0.0} for index, name in enumerate(study.models)}
        for split in (1.0, 3.0)
    ]
    rows = {row["model"]: row for row in pmf.summary(study, found)}
    last = rows["pmf, bayes, defaults"]
    assert last["RMSE"] == pytest.approx(2.5) and last["RMSE, less"] == pytest.approx(0.4)
    assert last["RMSE, error"] == pytest.approx(0.0, abs=1e-12) and rows[study.rival]["RMSE, less"] == 0
