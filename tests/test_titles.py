"""Titles and tags of real articles, alone and together (benchmarks.titles)."""

import numpy as np
import pytest

from benchmarks import titles
from benchmarks.study.choosing import reported_split
from benchmarks.study.paired import standard_error
from inference.evaluation.rankings import evaluate
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.metrics import CUTOFFS


def test_standard_error_is_over_splits():
    values = np.array([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0], [2.0, 2.0]])
    assert np.allclose(standard_error(values), [np.std([1, 3, 2, 2], ddof=1) / 2, 0])
    assert np.isnan(standard_error(values[:1])).all()


def test_gain_that_is_not_above_its_error_is_said_to_be_missed(capsys):
    rng = np.random.default_rng(0)
    alone, noise = rng.random((10, len(CUTOFFS))), rng.normal(size=(10, len(CUTOFFS)))
    found = {"titles, words": alone, "tags": alone + 0.1, "titles, words, and tags": alone + 0.1 + 1e-3 * noise}
    titles._print(10, found)
    printed = capsys.readouterr().out
    assert "met: titles, words, and tags, less titles, words" in printed
    assert "MISSED: titles, words, and tags, less tags" in printed


@pytest.mark.realdata
def test_titles_and_tags_together_rank_better_than_each_alone(data_folder, monkeypatch):
    """A smaller fit than the study's, one split: the product is above its parts and the cosine of the same contents."""
    monkeypatch.setattr(titles, "SIZES", titles.SIZES | {"factors": 50, "hidden": (50,)})
    dataset = load_dataset(data_folder / "citeulike-a", contents=titles.CONTENTS)
    split, fits = reported_split(dataset, 10, 0), titles.Fits(dataset, 1)
    found = {}
    for name in ("titles, words", "tags", "titles, words, and tags"):
        score = fits.fit(name, split, 0.02, 2.5).score_block
        found[name] = evaluate(score, split, ndcg_cutoffs=()).means()
    cosine = evaluate(titles.RIVALS["cosine of both"](dataset, split), split, ndcg_cutoffs=()).means()
    joint = found.pop("titles, words, and tags")
    for name, alone in (found | {"cosine": cosine}).items():
        assert all(joint[f"recall@{cutoff}"] > alone[f"recall@{cutoff}"] for cutoff in CUTOFFS[1:]), (
            name,
            joint,
            alone,
        )
