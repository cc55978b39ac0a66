"""The rival ALS has settings chosen on a validation part, never on test pairs, within bounds, and its table says so."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import inference
from inference.evaluate import main
from inference.evaluation import als
from inference.evaluation.als import ALPHAS, REGULARIZATIONS, als_factors, als_settings, validation_split
from inference.evaluation.rankings import evaluate, recall_on_validation
from inference.evaluation.rivals import RIVALS
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.splits import per_user, with_validation

N_USERS, N_ITEMS = 60, 80


@pytest.fixture(scope="module")
def dataset():
    """Dense choices of two tastes, of which many factors learn the noise by heart."""
    rng = np.random.default_rng(0)
    likes = rng.normal(size=(N_USERS, 2)) @ rng.normal(size=(2, N_ITEMS)) + 0.7 * rng.normal(size=(N_USERS, N_ITEMS))
    users, items = np.nonzero(likes > np.quantile(likes, 0.7))
    texts = [" ".join(rng.choice(["comet", "sail", "oven", "lemma"], 6)) for _ in range(N_ITEMS)]
    return from_frames({"user": users, "item": items}, {"item": list(range(N_ITEMS)), "text": texts})


@pytest.fixture
def bounded(monkeypatch):
    monkeypatch.setattr(als, "CUTOFFS", (5, 10))
    monkeypatch.setattr(als, "_CHOSEN", {})
    monkeypatch.setattr(als, "MORE_FACTORS", (20, 25, 50))
    return monkeypatch


def ranked(split, factors, alpha, penalty):
    u, v = als_factors(split, factors, alpha, 1.0, penalty, als.ITERATIONS)
    return evaluate(lambda users: u[torch.from_numpy(users)] @ v.T, split, cutoffs=(5, 10), ndcg_cutoffs=()).means()


def test_what_is_chosen_ranks_the_validation_part_best(dataset, bounded):
    bounded.setattr(als, "MORE_FACTORS", ())
    split = with_validation(per_user(dataset, 12, 0), 0.25, 0)
    chosen = als_settings(split)
    part = replace(split, test=split.validation, validation=None)
    found = {(a, r): sum(ranked(part, 10, a, r).values()) for a in ALPHAS for r in REGULARIZATIONS}
    assert found[chosen.alpha, chosen.regularization] == max(found.values()) and chosen.factors == 10
    assert "the best of 15 by recall on a validation part" in str(chosen)


def test_settings_are_chosen_by_lists_shorter_than_a_small_catalogue(dataset, bounded):
    bounded.setattr(als, "CUTOFFS", (50, 300))
    seen = []
    bounded.setattr(
        als,
        "evaluate",
        lambda *given, cutoffs, **more: seen.append(cutoffs) or evaluate(*given, cutoffs=cutoffs, **more),
    )
    als_settings(per_user(dataset, 12, 0))
    assert set(seen) == {(N_ITEMS // 2,)}, "the recall of 300 among 80 items is 1 whatever the settings"


def test_without_a_validation_part_a_fifth_of_the_training_pairs_is_one(dataset, bounded, caplog):
    split = per_user(dataset, 12, 0)
    part = validation_split(split)
    assert set(part.test.keys) | set(part.train.keys) == set(split.train.keys)
    assert 0.15 < len(part.test) / len(split.train) < 0.25 and not set(part.test.keys) & set(split.test.keys)
    given = with_validation(split, 0.5, 0)
    assert validation_split(given).test is given.validation and validation_split(given).train is given.train
    assert "became" not in caplog.text


def test_no_test_pair_has_a_say(dataset, bounded):
    split = per_user(dataset, 12, 0)
    other = replace(split, test=split.test.select(np.arange(len(split.test)) % 3 == 0))
    assert als_settings(split) == als_settings(other)
    scores = [RIVALS["als"](dataset, one)(np.arange(N_USERS)) for one in (split, other)]
    torch.testing.assert_close(*scores)


def test_where_nobody_has_two_training_pairs_the_settings_are_fixed_and_say_so(dataset, bounded):
    split = per_user(dataset, 1, 0)
    scores = RIVALS["als"](dataset, split)
    assert "50 factors, alpha 100, regularization 10: fixed, since no user has two" in scores.settings
    u, v = als_factors(split)
    torch.testing.assert_close(scores(np.arange(5)), u[:5] @ v.T, rtol=1e-4, atol=1e-5)
    tuning = with_validation(split, 0.3, 0)
    assert "the best of" in RIVALS["als"](dataset, tuning).settings  # on the tuning users' pairs


def test_the_work_is_bounded(dataset, bounded):
    split, fits = per_user(dataset, 12, 0), []
    own = als._recall
    bounded.setattr(als, "_recall", lambda *given: fits.append(given[2]) or own(*given))
    bounded.setattr(als, "MOST_WORK", 2.5 * als._work(validation_split(split), 20))
    assert "the best of 17" in str(als_settings(split)) and fits.count(20) == 2 and 25 not in fits
    als_settings(split)
    assert len(fits) == 17  # kept for this process


def test_the_table_says_what_was_chosen(dataset, bounded, tmp_path, capsys):
    small = {"factors": 2, "hidden": (4,), "pretrain_epochs": 1, "epochs": 1, "mode": "map"}
    fit = inference.fit(dataset, per_user(dataset, 12, 0), out=tmp_path / "run", **small)
    main([str(tmp_path / "run"), "--rivals", "--cutoffs", "5", "--out", str(tmp_path / "means.csv")])
    said = capsys.readouterr().out
    settings = str(als_settings(fit.split))
    assert f"als: {settings}." in said and settings in (tmp_path / "means.csv").read_text("utf-8")
    assert "tfidf, svd-50, svd-200: no setting was chosen for these data" in said
    assert "svd-300-prior: b " in said and "on training pairs that were hidden" in said


def test_dense_choices_are_ranked_better_than_with_fixed_settings(dataset, bounded):
    split = with_validation(per_user(dataset, 15, 0), 0.3, 0)
    u, v = als_factors(split)
    fixed = recall_on_validation(lambda users: u[torch.from_numpy(users)] @ v.T, split, 10)
    assert recall_on_validation(RIVALS["als"](dataset, split), split, 10) > 1.05 * fixed
