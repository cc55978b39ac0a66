"""Metrics against ir-measures, against brute force over every order of tied items, and on the cases that go wrong."""

from itertools import pairwise, permutations
from math import log2

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_cvae.errors import InputError
from pyro_cvae.metrics import CUTOFFS, NDCG_CUTOFFS, metrics_of, ndcg_at, rank_positions, recall_at


def csr(rows, n_items):
    """CSR matrix whose row i holds the items rows[i]."""
    matrix = np.zeros((len(rows), n_items))
    for row, items in enumerate(rows):
        matrix[row, list(items)] = 1.0
    return scipy.sparse.csr_matrix(matrix)


def rank_metrics(scores, train, test, cutoffs=CUTOFFS, ndcg_cutoffs=NDCG_CUTOFFS, protocol="corrected"):
    positions = rank_positions(scores, train, test, max((*cutoffs, *ndcg_cutoffs)), protocol)
    return metrics_of(positions, cutoffs, ndcg_cutoffs)


def both(scores, train, test, cutoff, protocol="corrected"):
    """Recall and nDCG at one cutoff of one user."""
    n_items = len(scores)
    block = torch.tensor([scores], dtype=torch.float64)
    positions = rank_positions(block, csr([train], n_items), csr([test], n_items), cutoff, protocol)
    return [float(metric(positions, cutoff)) for metric in (recall_at, ndcg_at)]


def by_permutations(scores, train, test, cutoff, protocol):
    """The same two, averaged over every order of the candidates that does not contradict the scores."""
    relevant = set(test) | set(train) if protocol == "paper" else set(test)
    candidates = [i for i in range(len(scores)) if protocol == "paper" or i not in train or i in test]
    ideal = sum(1 / log2(p + 2) for p in range(min(cutoff, len(relevant))))
    totals, n_orders = np.zeros(2), 0
    for order in permutations(candidates):
        if any(scores[a] < scores[b] for a, b in pairwise(order)):
            continue
        hits = [item in relevant for item in order[:cutoff]]
        dcg = sum(hit / log2(p + 2) for p, hit in enumerate(hits))
        totals += [sum(hits) / len(relevant), dcg / ideal]
        n_orders += 1
    return totals / n_orders


@settings(deadline=None, max_examples=150)
@given(data=st.data(), protocol=st.sampled_from(["corrected", "paper"]))
def test_ties_are_broken_by_expectation(data, protocol):
    n_items = data.draw(st.integers(1, 6))
    scores = data.draw(st.lists(st.integers(-1, 2).map(float), min_size=n_items, max_size=n_items))
    item = st.integers(0, n_items - 1)
    train, test = data.draw(st.sets(item)), data.draw(st.sets(item, min_size=1))
    cutoff = data.draw(st.integers(1, n_items + 2))
    expected = by_permutations(scores, train, test, cutoff, protocol)
    np.testing.assert_allclose(both(scores, train, test, cutoff, protocol), expected, rtol=1e-12, atol=1e-14)


def test_1000_random_lists_agree_with_ir_measures():
    ir_measures = pytest.importorskip("ir_measures")
    generator = np.random.default_rng(0)
    n_users, n_items, cutoffs = 1000, 120, (1, 5, 50, 100)
    scores = generator.permuted(np.tile(np.arange(n_items), (n_users, 1)), axis=1).astype(np.float64)
    part = generator.random((n_users, n_items))
    train, test = part < 0.1, part > generator.uniform(0.3, 0.99, (n_users, 1))
    test[~test.any(1), 0] = True
    train &= ~test
    measures = {f"recall@{m}": ir_measures.R @ m for m in cutoffs} | {
        f"ndcg@{m}": ir_measures.nDCG @ m for m in cutoffs
    }
    qrels = {str(u): {str(i): 1 for i in np.flatnonzero(test[u])} for u in range(n_users)}
    run = {str(u): {str(i): scores[u, i] for i in np.flatnonzero(~train[u])} for u in range(n_users)}
    block = torch.from_numpy(scores), scipy.sparse.csr_matrix(train), scipy.sparse.csr_matrix(test)
    ours = rank_metrics(*block, cutoffs=cutoffs, ndcg_cutoffs=cutoffs)
    name_of = {measure: name for name, measure in measures.items()}
    compared = 0
    for theirs in ir_measures.iter_calc(list(measures.values()), qrels, run):
        assert float(ours[name_of[theirs.measure]][int(theirs.query_id)]) == pytest.approx(theirs.value, abs=1e-12)
        compared += 1
    assert compared == n_users * 2 * len(cutoffs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_a_collapsed_model_has_the_recall_of_a_random_ranking(dtype):
    n_items = 1000
    metrics = rank_metrics(torch.zeros(1, n_items, dtype=dtype), csr([range(100)], n_items), csr([[500, 900]], n_items))
    for cutoff in (50, 100, 300):
        assert float(metrics[f"recall@{cutoff}"]) == pytest.approx(cutoff / 900, rel=1e-15)


def test_a_tie_across_the_cutoff_counts_the_whole_row():
    scores = [9.0, 8.0] + [1.0] * 98
    assert both(scores, [], [1, 50], 3)[0] == pytest.approx((1 + 1 / 98) / 2, rel=1e-15)


def test_more_places_than_items_find_everything():
    assert both([0.3, 0.2, 0.1], [0], [1, 2], 50) == pytest.approx([1.0, 1.0], rel=1e-15)


def test_training_items_count_as_hits_in_the_paper_protocol_only():
    scores, train, test = [0.9, 0.8, 0.7, 0.6], [0], [2]
    assert both(scores, train, test, 2)[0] == 1.0
    assert both(scores, train, test, 2, "paper")[0] == 0.5


def test_rows_of_a_block_do_not_touch_one_another():
    generator = torch.Generator().manual_seed(1)
    scores = torch.randint(0, 5, (7, 40), generator=generator).float()
    train = scipy.sparse.random_array((7, 40), density=0.1, rng=0, format="csr")
    test = scipy.sparse.random_array((7, 40), density=0.2, rng=1, format="csr")
    whole = rank_metrics(scores, train, test, cutoffs=(3, 10), ndcg_cutoffs=(5,))
    for row in range(7):
        alone = rank_metrics(scores[[row]], train[[row]], test[[row]], cutoffs=(3, 10), ndcg_cutoffs=(5,))
        for name in whole:
            torch.testing.assert_close(whole[name][[row]], alone[name], rtol=0, atol=0, equal_nan=True)


def test_a_user_without_relevant_items_has_no_recall_and_the_scores_are_left_alone():
    scores = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    metrics = rank_metrics(scores, csr([[0], [0]], 2), csr([[], [1]], 2))
    assert metrics["recall@50"].isnan().tolist() == [True, False]
    assert metrics["recall@50"].dtype == torch.float64
    assert scores.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    nobody = rank_metrics(scores, csr([[0], [0]], 2), csr([[], []], 2))
    assert bool(nobody["ndcg@100"].isnan().all())


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_refused(wrong):
    scores = torch.tensor([[1.0, 2.0], [3.0, wrong]])
    with pytest.raises(InputError, match=r"row 1 .* not finite; the fit has diverged"):
        rank_metrics(scores, csr([[0], [0]], 2), csr([[1], [1]], 2))


def test_a_sum_that_overflows_is_no_reason_to_refuse():
    scores = torch.full((1, 3), 3e38)
    assert float(rank_metrics(scores, csr([[]], 3), csr([[1]], 3), cutoffs=(1,))["recall@1"]) == pytest.approx(1 / 3)


def test_unknown_protocol_and_shapes_that_differ_are_refused():
    with pytest.raises(InputError, match="choose one of corrected, paper"):
        rank_metrics(torch.zeros(1, 2), csr([[0]], 2), csr([[1]], 2), protocol="other")
    with pytest.raises(ValueError, match="differ in shape"):
        rank_metrics(torch.zeros(1, 3), csr([[0]], 2), csr([[1]], 2))
    with pytest.raises(ValueError, match=r"outside 1\.\.2"):
        recall_at(rank_positions(torch.zeros(1, 2), csr([[0]], 2), csr([[1]], 2), 2), 3)
