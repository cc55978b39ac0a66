"""Combinations of likelihoods, networks and algorithms on data drawn from each (benchmarks.combinations)."""

import subprocess
import sys

import numpy as np
import pytest

from benchmarks import combinations
from benchmarks.combinations import Case
from benchmarks.floors import RECOVERED
from inference.fitting import Pretrained
from inference.options import METHODS
from models.catalogue import CONTENTS, NETWORKS, RATINGS


def measure(case):
    return combinations.measure(case, combinations.simulate(case), Pretrained())


def test_every_name_of_the_package_is_in_some_compatible_combination():
    good = [case for case in combinations.cases() if not combinations.compatible(case)]
    assert {case.content for case in good} == set(CONTENTS)
    assert {case.network for case in good} - {"auto"} == set(NETWORKS)
    assert {case.rating for case in good} == set(RATINGS)
    assert {case.method for case in good} == set(METHODS)
    assert {case.kind for case in good} == {kind for facts in CONTENTS.values() for kind in facts.reads} | {"all"}
    closed = {case.rating for case in good if case.method == "coordinate"}
    assert closed == {name for name, facts in RATINGS.items() if facts.conjugate}


def test_a_drawn_content_varies_with_z_and_is_of_its_kind():
    """x is the likelihood's own draw, in its support, and tells items apart more than noise does."""
    case = Case("poisson", "words", "mlp", "normal", "svi", "map")
    dataset, split, scores, cold = combinations.simulate(case)
    counts = dataset.others["words"].counts.toarray()
    assert (counts == counts.round()).all() and counts.mean() > 0.2
    assert counts.var(0).mean() > 1.5 * counts.mean()  # a Poisson of one rate would have its mean as variance
    assert split.train.observed.sum() < 0.3 * scores.size and not split.train.item_counts[cold].any()
    again = combinations.simulate(case)
    assert np.array_equal(scores, again[2]) and dataset.fingerprint() == again[0].fingerprint()


def test_ratings_follow_the_true_scores():
    """Clicks are drawn at sigmoid(s) of all cells that may be seen, zeros not stored, others missing."""
    _, split, scores, cold = combinations.simulate(Case("bernoulli", "words", "mlp", "bernoulli", "svi", "map"))
    pairs = split.train
    clicked = np.zeros(scores.shape, bool)
    clicked[pairs.users[pairs.positive], pairs.items[pairs.positive]] = True
    missing = np.zeros(scores.shape, bool)
    missing[pairs.users[~pairs.observed], pairs.items[~pairs.observed]] = True
    assert missing[:, cold].all() and not clicked[missing].any()
    expected = 1 / (1 + np.exp(-scores[~missing]))
    error = np.sqrt((expected * (1 - expected)).sum())
    assert abs(clicked[~missing].sum() - expected.sum()) < 3.9 * error


@pytest.mark.parametrize(
    "case",
    [RECOVERED[0], *(pytest.param(case, marks=pytest.mark.slow) for case in RECOVERED[1:])],
    ids=lambda case: f"{case.content}-{case.rating}",
)
def test_a_combination_is_measured(case):
    """That its scores are recovered is asked of several seeds in tests/test_floors.py."""
    row = measure(case)
    unseen = np.isfinite([row["warm"], row["cold"]]).all()
    assert unseen and row["ok"] == (row["warm"] >= combinations.WARM_FLOOR and row["cold"] >= combinations.COLD_FLOOR)


def test_a_fit_to_other_ratings_is_below_the_floor():
    """The floors are no formality: with the items' scores shuffled nothing is recovered."""
    case = Case("bernoulli", "words", "mlp", "confidence-normal", "coordinate", "map")
    dataset, split, scores, cold = combinations.simulate(case)
    shuffled = scores[:, np.random.default_rng(0).permutation(scores.shape[1])]
    row = combinations.measure(case, (dataset, split, shuffled, cold), Pretrained())
    assert not row["ok"] and abs(row["warm"]) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("content", [name for name in CONTENTS if name != "categorical"])
def test_scores_are_recovered_from_every_content(content):
    kind = "all" if content == "product" else CONTENTS[content].reads[-1]
    network = "auto" if content == "product" else next(n for n in reversed(NETWORKS) if kind in NETWORKS[n].reads)
    assert measure(Case(content, kind, network, "confidence-normal", "coordinate", "bayes"))["ok"]


@pytest.mark.slow
@pytest.mark.parametrize("rating", list(RATINGS))
@pytest.mark.parametrize("mode", list(combinations.MODES))
def test_scores_are_recovered_from_every_rating(rating, mode):
    cases = [Case("bernoulli", "words", "mlp", rating, method, mode) for method in METHODS]
    good = [case for case in cases if not combinations.compatible(case)]
    data = combinations.simulate(cases[0])
    rows = [combinations.measure(case, data, Pretrained()) for case in good]
    assert all(row["ok"] for row in rows) and (rows or mode == "structured")


REFUSED = """
import runpy, sys
name = sys.argv.pop(1)
try:
    runpy.run_module(name, run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not {"torch", "pyro", "pandas", "scipy", "sklearn"} & set(sys.modules)
    sys.exit(end.code)
"""


@pytest.mark.parametrize(
    ("method", "flags", "works"),
    [
        ("coordinate", ["--rating-likelihood", "poisson"], "confidence-normal"),
        ("mcmc", ["--rating-likelihood", "bernoulli-bound", "--mode", "bayes"], "normal"),
        ("svi", ["--rating-likelihood", "bernoulli", "--guide", "structured"], "normal"),
        ("svi", ["--content-likelihood", "tokens", "--network", "mlp"], "recurrent"),
    ],
)
def test_incompatible_names_are_refused_before_anything_heavy_is_imported(method, flags, works):
    """In one line with what works, and exit code 2."""
    command = [sys.executable, "-c", REFUSED, f"inference.{method}", *flags]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 2 and len(answer.stderr.strip().splitlines()) == 1, answer.stderr
    assert works in answer.stderr and not answer.stdout


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_structured_fit_keeps_what_contents_have_said(seed):
    """Cold items are found as by closed forms. From a draw of u they had .20 and .07, where sweeps have .68 and .71."""
    cases = [
        Case("tokens", "tokens", "convolutional", "confidence-normal", method, "structured")
        for method in ("coordinate", "svi")
    ]
    data, pretrained = combinations.simulate(cases[0], seed), Pretrained()
    closed, steps = (combinations.measure(case, data, pretrained)["cold"] for case in cases)
    assert abs(closed - steps) < 0.05
