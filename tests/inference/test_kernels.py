"""Compiled kernels against torch's own way, in float64 and float32."""

import sys
from dataclasses import replace

import pytest
import torch

from inference.algorithms import kernels
from inference.algorithms.cells import Cells
from inference.algorithms.half_steps import Background, half_step
from inference.algorithms.kernels import kernel
from pyro_cvae.errors import MachineError
from tests.inference.test_half_steps import FAMILIES, OTHERS, SIDES, Side, make_rows, prior_of, ragged

needs_numba = pytest.mark.skipif(not kernels.there(), reason="numba is not installed")
CLOSE = {torch.float64: {"rtol": 1e-10, "atol": 1e-10}, torch.float32: {"rtol": 2e-4, "atol": 2e-4}}


def both(step):
    """What a step gives by torch and by the kernels."""
    found = []
    for name in ("torch", "numba"):
        with kernel(name):
            found.append(step())
    return found


def moved(thing, dtype):
    """The same cells or rows with numbers of a type."""
    parts = {n: t.to(dtype) for n, t in vars(thing).items() if isinstance(t, torch.Tensor) and t.is_floating_point()}
    return replace(thing, **parts)


def assert_same(one, other, dtype):
    close = CLOSE[dtype]
    torch.testing.assert_close(one.rows.loc, other.rows.loc, **close)
    for name in ("variance", "covariance", "log_det"):
        if (theirs := getattr(one.rows, name)) is not None:
            torch.testing.assert_close(theirs, getattr(other.rows, name), **close)
    torch.testing.assert_close(one.shift, other.shift, **close)
    assert other.square == pytest.approx(one.square, rel=close["rtol"])
    assert other.linear == pytest.approx(one.linear, rel=close["rtol"])


@needs_numba
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("n_factors", [1, 7, 8, 20])
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_give_the_numbers_of_torch(family, other, n_factors, dtype):
    for name in SIDES:
        side = Side(name, ragged(), 0.05)
        rows = moved(make_rows(other, side.others, n_factors), dtype)
        cells, (prior, _, var) = moved(side.cells, dtype), prior_of(side, n_factors)
        prior = None if prior is None else prior.to(dtype)
        spread = var.to(dtype) if family == "structured" else None
        kind = "full" if family == "structured" else family
        arguments = (cells, rows, side.others.observed, 0.05, 1.7, prior, spread, kind)
        assert_same(*both(lambda given=arguments: half_step(*given)), dtype)


@needs_numba
@pytest.mark.parametrize("n_factors", [5, 20])
def test_rows_are_whitened_at_once_or_as_cells_ask_for_them(n_factors, monkeypatch):
    for name in SIDES:
        side = Side(name, ragged(), 0.05)
        others, (prior, _, _), found = make_rows("point", side.others, n_factors), prior_of(side, n_factors), []
        for cells_a_row in (0.0, 1e9):
            monkeypatch.setattr(kernels, "TABLE_FROM", cells_a_row)
            found += both(lambda side=side, others=others, prior=prior: side.step(others, "point", prior))
        for other in found[1:]:
            assert_same(found[0], other, torch.float64)


@needs_numba
@pytest.mark.parametrize("family", ["point", "diagonal", "full"])
def test_kernels_take_zeros_that_differ_by_row(family):
    """Rows that are observed without a cell have a precision of their own then."""
    side = Side("items", ragged(unrated="zeros"), 0.05)
    by_row = 0.1 + torch.rand(len(side.cells), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    background = Background(0.05, by_row=by_row, shift=0.3)
    arguments = (side.cells, make_rows("full", side.others, 5), side.others.observed, background, 1.7)
    assert_same(*both(lambda: half_step(*arguments, family=family)), torch.float64)


@needs_numba
def test_rows_that_are_too_long_for_a_kernel_are_torchs(monkeypatch):
    """With many factors: rows of more cells than a kernel takes, and rows with weights that are not positive."""
    monkeypatch.setattr(kernels, "SMALL", 4)
    monkeypatch.setattr(kernels, "FEW", 5)
    blocks, asked = Cells.blocks, []
    monkeypatch.setattr(
        Cells, "blocks", lambda self, floats, among=None: asked.append(among) or blocks(self, floats, among)
    )
    side = Side("items", ragged(), 0.05)
    others, prior = make_rows("point", side.others, 6), prior_of(side, 6)[0]
    assert_same(*both(lambda: side.step(others, "point", prior)), torch.float64)
    lengths, weights = side.cells.lengths, side.cells.weights
    positive = torch.tensor([bool((part > 0).all()) for part in weights.split(lengths.tolist())])
    assert asked[0] is None
    assert torch.equal(asked[1].sort().values, ((lengths > 5) | ~positive).nonzero().flatten())


@needs_numba
@pytest.mark.parametrize("family", FAMILIES)
def test_threads_change_no_bit(family, threads, monkeypatch):
    monkeypatch.setattr(kernels, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(kernels, "NORMALS_AT_ONCE", 3)
    monkeypatch.setattr(kernels, "MOMENTS_AT_ONCE", 5)
    side = Side("items", ragged(), 0.05)
    other = make_rows("point" if family == "point" else "structured", side.others)
    prior, _, var = prior_of(side, 3)
    found = []
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        with kernel("numba"):
            found.append(side.step(other, family, prior, prior_var=var if family == "structured" else None))
    for one in found[1:]:
        assert torch.equal(one.rows.loc, found[0].rows.loc)
        assert (one.square, one.linear) == (found[0].square, found[0].linear)


@needs_numba
@pytest.mark.parametrize("family", ["point", "diagonal", "full"])
def test_a_kernel_names_a_precision_that_is_not_definite(family):
    """A weight below minus the background's: the row's own precision is negative."""
    side = Side("users", ragged(), 0.05)
    cells = side.cells.with_values(side.cells.weights - 9.0, side.cells.targets)
    with kernel("numba"), pytest.raises(MachineError, match="--dtype float64"):
        half_step(cells, make_rows("point", side.others), side.others.observed, 0.05, 1e-3, family=family)


def test_gradients_go_through_torch(monkeypatch):
    monkeypatch.setattr(kernels, "_compiled", lambda: "kernels")
    monkeypatch.setattr(kernels, "there", lambda: True)
    number = torch.zeros(2)
    assert kernels.compiled_for(number) == "kernels"
    assert kernels.compiled_for(number, number.clone().requires_grad_()) is None
    assert kernels.compiled_for(number.half()) is None and kernels.compiled_for(number.to("meta")) is None
    with kernel("torch"):
        assert kernels.compiled_for(number) is None


def test_without_numba_auto_is_torch_and_numba_is_refused(monkeypatch):
    monkeypatch.setattr(kernels, "there", lambda: False)
    monkeypatch.setitem(sys.modules, "inference.algorithms.compiled", None)
    side = Side("users", ragged(), 0.05)
    other = make_rows("point", side.others)
    with kernel("torch"):
        expected = side.step(other, "point", None)
    assert torch.equal(side.step(other, "point", None).rows.loc, expected.rows.loc)
    with pytest.raises(MachineError, match=r"pip install -e '\.\[fast\]'"), kernel("numba"):
        pass


def test_blocks_among_some_rows():
    cells = Side("items", ragged(), 0.05).cells
    wanted = (cells.lengths > 3).nonzero().flatten()[::2]
    found = torch.cat(cells.blocks(lambda length: 1, wanted)).sort().values
    assert torch.equal(found, wanted) and cells.blocks(lambda length: 1, wanted[:0]) == []
