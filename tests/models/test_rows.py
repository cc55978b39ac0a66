"""Rows of content of every kind: selection, what is lacking, and sequences with their beginnings and ends."""

import numpy as np
import pytest
import torch

from models.rows import MASKED, DenseRows, Form, PartRows, SparseRows, TokenRows

SEQUENCES = [[3, 1], [], [0, 2, 2, 1], [4]]


def tokens() -> TokenRows:
    return TokenRows.from_lists(SEQUENCES, 5)


def lists(rows: TokenRows) -> list[list[int]]:
    return [part.tolist() for part in rows.tokens.split(rows.lengths.tolist())]


def test_tokens_are_selected_with_their_order():
    assert lists(tokens()) == SEQUENCES
    chosen = tokens().select(torch.tensor([2, 1, 2, 0]))
    assert lists(chosen) == [SEQUENCES[2], [], SEQUENCES[2], SEQUENCES[0]]
    assert chosen.shape == (4, 5) and chosen.form == Form("tokens", (5,))
    assert chosen.rows.tolist() == [0] * 4 + [2] * 4 + [3] * 2


def test_ends_and_beginnings():
    rows = tokens()
    assert lists(rows.ended()) == [[3, 1, 5], [5], [0, 2, 2, 1, 5], [4, 5]]
    assert lists(rows.begun()) == [[5, 3, 1], [5], [5, 0, 2, 2, 1], [5, 4]]
    told = torch.where(rows.tokens == 2, MASKED, rows.tokens)
    hidden = TokenRows(rows.indptr, rows.tokens, 5, told)
    assert lists(hidden.begun()) == [[5, 3, 1], [5], [5, 0, 6, 6, 1], [5, 4]]
    assert lists(hidden.ended()) == lists(rows.ended()), "what is to be predicted is not hidden"
    assert lists(hidden.select(torch.tensor([2])).begun()) == [[5, 0, 6, 6, 1]]
    padded, there = rows.padded()
    assert padded.tolist() == [[3, 1, 0, 0], [0] * 4, [0, 2, 2, 1], [4, 0, 0, 0]]
    assert there.sum(1).tolist() == [2, 0, 4, 1]


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_tokens_are_hidden_at_the_rate_that_is_asked(rate):
    rows = TokenRows.from_lists([[1] * 5000, [2] * 5000], 5)
    told = rows.masked(rate).told
    assert abs(float((told == MASKED).double().mean()) - rate) <= 4 * (rate * (1 - rate) / 10_000) ** 0.5
    assert torch.equal(told[told != MASKED], rows.tokens[told != MASKED])


def test_counts_of_tokens():
    dense = torch.zeros(4, 5)
    for row, sequence in enumerate(SEQUENCES):
        for token in sequence:
            dense[row, token] += 1
    counts = tokens().counts(torch.float64)
    assert torch.equal(counts.dense(), dense.double())


@pytest.mark.parametrize("array", [np.float32, np.uint8, np.float64])
@pytest.mark.parametrize("shape", [(6,), (2, 4, 5)])
def test_dense_rows_convert_what_is_selected(tmp_path, array, shape):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (9, *shape)).astype(array)
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r", allow_pickle=False)
    rows = DenseRows.from_numpy(mapped).to(dtype=torch.float64)
    assert rows.storage.dtype == torch.from_numpy(values).dtype, "the file is converted before it is asked for"
    wanted = torch.as_tensor(values.astype(np.float64)) / (255 if array == np.uint8 else 1)
    chosen = torch.tensor([7, 0, 7])
    found = rows.select(chosen)
    assert found.form == Form("vectors" if len(shape) == 1 else "images", shape)
    torch.testing.assert_close(found.block, wanted[chosen], rtol=1e-15, atol=0)
    flat = wanted[chosen].flatten(1)
    block = torch.zeros(3, found.n_columns, dtype=torch.float64)
    block[found.rows, found.columns] = found.values
    torch.testing.assert_close(block, flat, rtol=1e-15, atol=0)
    torch.testing.assert_close(found.totals, flat.sum(1))
    table = torch.randn(found.n_columns, 3, dtype=torch.float64)
    torch.testing.assert_close(found.bag(table), SparseRows.from_dense(flat).bag(table))
    assert found.to(dtype=torch.float32).block.dtype == torch.float32


def parts() -> PartRows:
    there = {"a": torch.tensor([True, False, True, True, False]), "b": torch.tensor([False, False, True, True, True])}
    dense = torch.arange(9.0).view(3, 3)
    return PartRows({"a": DenseRows(dense), "b": TokenRows.from_lists([[1], [2, 2], []], 3)}, there)


def contents(rows: PartRows) -> list[dict[str, list]]:
    """What each item has."""
    found: list[dict[str, list]] = [{} for _ in range(len(rows))]
    for name, part in rows.parts.items():
        values = lists(part) if isinstance(part, TokenRows) else part.dense().tolist()
        for item, value in zip(rows.items(name).tolist(), values, strict=True):
            found[item][name] = value
    return found


def test_parts_go_with_their_items():
    rows = parts()
    whole = contents(rows)
    assert whole == [{"a": [0, 1, 2]}, {}, {"a": [3, 4, 5], "b": [1]}, {"a": [6, 7, 8], "b": [2, 2]}, {"b": []}]
    for chosen in ([4, 2, 2, 1], [], [1], [0, 1, 2, 3, 4]):
        assert contents(rows.select(torch.tensor(chosen, dtype=torch.int64))) == [whole[item] for item in chosen]
    kept = {"a": torch.tensor([False, True, True, True, True]), "b": torch.tensor([True, True, False, True, True])}
    assert contents(rows.only(kept)) == [{}, {}, {"a": [3, 4, 5]}, {"a": [6, 7, 8], "b": [2, 2]}, {"b": []}]


def test_rows_that_say_nothing_are_blank():
    words = SparseRows.from_dense(torch.tensor([[0.0, 2.0], [0.0, 0.0], [1.0, 0.0]]))
    assert words.blank.tolist() == [False, True, False]
    numbers = DenseRows(torch.zeros(2, 3))
    assert numbers.blank.tolist() == [False, False]
    tokens = TokenRows(torch.tensor([0, 0, 2]), torch.tensor([1, 1]), 3)
    assert tokens.blank.tolist() == [True, False]
    present = {"words": torch.tensor([True, True, True, False]), "numbers": torch.tensor([False, True, False, False])}
    parts = PartRows({"words": words, "numbers": DenseRows(torch.zeros(1, 3))}, present)
    assert parts.blank.tolist() == [False, False, False, True]
    assert parts.select(torch.tensor([3, 0])).blank.tolist() == [True, False]
