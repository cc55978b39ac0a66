r"""Closed-form half-steps: all rows of one side (users or items) given the other side, batched (paper, 2.2 and 2.3).

With q(w_o) = N(m_o, S_o) of the other side's rows o, and a row i with prior N(mu_i, 1 / lambda), the best q(w_i) is

    N(Lambda_i^-1 h_i, Lambda_i^-1),    Lambda_i = P + sum over stored cells of (c - b) (m_o m_o' + S_o),
    h_i = lambda mu_i + sum over stored cells of c r m_o,      P = b sum over all o of (m_o m_o' + S_o) + lambda I.

P is shared by all rows, so that a row costs what its stored cells cost and nothing is of size users x items. Points
(``map``) are the same update with all S_o = 0: then a row with n cells is P plus rank n, solved in n x n by Woodbury's
identity where n is small.

Two things may be added (:class:`Background`). With biases a score is w_i.m_o + f_o, f_o the bias of the other side's
row (:class:`Offset`). Under a Gaussian bound (:class:`models.ratings.GaussianSite`) the zeros have precisions of their
own by user and a linear part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from inference.algorithms import kernels
from inference.algorithms.cells import Cells, Padded, block_bytes
from inference.algorithms.kernels import in_parallel, indefinite
from inference.threads import blas_threads, torch_threads
from models.gaussians import Gaussians
from models.observations import RatingColumns

WOODBURY_UP_TO = 1.0
"""Rows with at most this many stored cells a factor are solved in n x n by Woodbury (``benchmarks.sweeps``)."""


@dataclass(frozen=True, eq=False)
class Offset:
    """A part f_o of the scores that is the other side's alone, its bias.

    Shapes: ``mean`` E[f_o] and ``second`` E[f_o^2] (n_others,); ``covariance`` cov(f_o, m_o) (n_others, n_factors).
    """

    mean: Tensor
    second: Tensor
    covariance: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Background:
    """What a half-step meets besides stored cells and the other side's rows: the zeros, and the other side's biases.

    The precision of the zero of rows i and o is ``b`` times ``by_row`` (n_rows,) and ``by_other`` (n_others,), where
    they are given, and its linear part is ``shift``; ``offset`` is what the other side adds to scores by itself.
    """

    b: float = 1.0
    by_row: Tensor | None = None
    by_other: Tensor | None = None
    shift: float = 0.0
    offset: Offset | None = None

    def weights(self, counted: Tensor) -> Tensor:
        """``by_other`` where the mask ``counted`` of the other side's rows is 1, and 0 elsewhere, (n_others,)."""
        return counted if self.by_other is None else counted * self.by_other


@dataclass(frozen=True, eq=False)
class HalfStep:
    """A side's new q, and sums over its observed rows in nats and float64.

    ``square`` is the sum of <E[w w'], Lambda_i - lambda I>, ``linear`` of E[w]'(h_i - lambda mu_i), ``offset`` what the
    other side's biases have for themselves, with which
    E[1/2 sum C (R - s)^2] = 1/2 (square - 2 linear + offset + sum of c r^2), :meth:`half_square`. ``shift`` is
    h_i - lambda mu_i (n_rows, n_factors).
    """

    rows: Gaussians
    square: float
    linear: float
    shift: Tensor
    offset: float = 0.0

    @property
    def form(self) -> float:
        """E[sum over cells of c s^2 - 2 t s] in nats, c and t those of the site, under the new q and the other's."""
        return self.square - 2 * self.linear + self.offset

    def half_square(self, columns: RatingColumns, precision: Tensor | None = None) -> float:
        """E[1/2 sum_ij C_ij (R_ij - s_ij)^2] in nats under the new q of this side and the other side's q.

        ``precision`` (n_stored,) are the C_ij of the stored cells where they are not those of the columns.
        """
        c = columns.confidences if precision is None else precision
        stored = (c.double() * columns.ratings.double().square()).sum()
        return 0.5 * (self.form + float(stored))


def half_step(
    cells: Cells,
    other: Gaussians,
    other_observed: Tensor,
    background: float | Background,
    precision: float,
    prior_loc: Tensor | None = None,
    prior_var: Tensor | None = None,
    family: str = "point",
) -> HalfStep:
    """The best q of all rows of a side given the other side's, in closed form.

    Parameters: ``background`` the precision b of all zeros, where nothing more is to be said of them; ``precision`` and
    ``prior_loc`` (n_rows, n_factors; ``None`` is 0) of the rows' prior; ``prior_var`` (n_rows, n_factors) where that
    mean is itself Normal (structured q(v|z) q(z), full family only); ``family`` "point", "diagonal" (the best product
    of univariate Normals) or "full". Raises MachineError where a precision is not positive definite in this
    floating-point type. Source: paper, 2.2 (points) and 2.3 (full).
    """
    background = background if isinstance(background, Background) else Background(background)
    by_row = background.by_row
    # Small batched Cholesky factors gain nothing from torch's own threads and may lose a hundredfold by them; idle ones
    # that wait for work take the cores from ours. The blocks of rows are shared out among as many Python threads.
    with torch_threads(1) as workers, blas_threads(1):
        n_factors = other.loc.shape[1]
        eye = torch.eye(n_factors, dtype=other.loc.dtype, device=other.loc.device)
        counted = other_observed.to(other.loc.dtype)
        gram = cells.over_others(background.b * kernels.second_moment(other, background.weights(counted), workers))
        of_zeros, of_offsets = _of_zeros(cells, other, counted, background), 0.0
        if background.offset is not None:
            of_offsets = _offsets_of_zeros(cells, background.offset, counted, background)
        other, offset = _met(cells, other, background.offset)
        if offset is not None:
            of_offsets += _offsets_of_cells(cells, offset)
            cells = cells.with_values(cells.weights, cells.targets - cells.weights * offset.mean[cells.others])
        shift = cells.over_cells(_shift(cells, other, offset))
        pull = None if prior_loc is None else precision * prior_loc
        if of_zeros is not None:
            shift = shift + of_zeros
            pull = of_zeros.expand_as(shift) if pull is None else pull + of_zeros
        right = shift if prior_loc is None else torch.add(shift, prior_loc, alpha=precision)
        if family == "point" and other.is_point and cells.elsewhere is None:
            short = WOODBURY_UP_TO * n_factors
            if by_row is None:
                points = _points(cells, other.loc, gram + precision * eye, pull, right, short, workers)
            else:
                points = _points_by_row(cells, other.loc, (gram, precision, by_row), pull, right, short, workers)
            rows = Gaussians(points)
        else:
            rows = _rows(cells, other, gram, right, precision, family == "full", workers, by_row)
            rows = Gaussians(rows.loc) if family == "point" else rows
        if len(unobserved := cells.unobserved):
            rows.loc[unobserved] = 0.0 if prior_loc is None else prior_loc.index_select(0, unobserved)
        if prior_var is not None:
            rows = replace(rows, spread=prior_var, slope=precision)
        return replace(_summed(rows, cells, shift, right, precision), offset=of_offsets)


def _met(cells: Cells, other: Gaussians, offset: Offset | None) -> tuple[Gaussians, Offset | None]:
    """The other side's rows that cells are numbered by, and their offsets; those of other workers among them."""
    if cells.afar is None:
        return other, offset
    if offset is not None:
        offset = Offset(cells.afar.numbers(offset.mean), cells.afar.numbers(offset.second))
    return cells.afar.rows(other), offset


def _shift(cells: Cells, other: Gaussians, offset: Offset | None) -> Tensor:
    """What the stored cells add to h_i, (n_rows, n_factors); their targets have the offset's mean taken out of them."""
    shift = cells.shift(other.loc)
    if offset is None or offset.covariance is None:
        return shift
    return shift - F.embedding_bag(
        cells.others, offset.covariance, cells.indptr[:-1], mode="sum", per_sample_weights=cells.weights
    )


def _of_zeros(cells: Cells, other: Gaussians, counted: Tensor, background: Background) -> Tensor | None:
    """What the zeros add to h_i, which is often the same for all, (n_factors,) or (n_rows, n_factors)."""
    offset, weights = background.offset, background.weights(counted)
    linear = cells.over_others(background.shift * (counted @ other.loc)) if background.shift else None
    if offset is None:
        return linear
    of_zeros = (weights * offset.mean) @ other.loc
    if offset.covariance is not None:
        of_zeros = of_zeros + weights @ offset.covariance
    of_zeros = cells.over_others(background.b * of_zeros)
    of_zeros = of_zeros if background.by_row is None else background.by_row[:, None] * of_zeros
    return -of_zeros if linear is None else linear - of_zeros


def _offsets_of_zeros(cells: Cells, offset: Offset, counted: Tensor, background: Background) -> float:
    """What of sum_io [c E[s^2] - 2 t E[s]] over zeros the offsets have for themselves, over observed rows."""
    by_row, weights = background.by_row, (background.b * background.weights(counted)).double()
    seen = cells.observed.double() if by_row is None else cells.observed * by_row.double()
    sums = torch.stack([weights @ offset.second.double(), counted.double() @ offset.mean.double()])
    second, mean = cells.over_others(sums).tolist()
    return float(seen.sum()) * second - 2 * background.shift * float(cells.observed.sum()) * mean


def _offsets_of_cells(cells: Cells, offset: Offset) -> float:
    """The same over stored cells, whose targets have no offset taken out of them."""
    mean, second = offset.mean.double()[cells.others], offset.second.double()[cells.others]
    return float(cells.over_cells((cells.weights.double() * second - 2 * cells.targets.double() * mean).sum()))


def _summed(rows: Gaussians, cells: Cells, shift: Tensor, right: Tensor, precision: float) -> HalfStep:
    """The sums of :class:`HalfStep`: at the optimum Lambda_i E[w] = h_i and tr(S_i Lambda_i) = K, so both are cheap."""
    loc, seen = rows.loc, cells.observed
    linear = kernels.inner(loc, shift)
    square = kernels.inner(loc, right) - precision * (kernels.inner(loc, loc) + rows.traces())
    if not rows.is_point:
        square = square + loc.shape[1]
    if rows.spread is not None:
        given = rows.covariance.diagonal(dim1=-2, dim2=-1)[rows.block]  # type: ignore[union-attr]
        square = square + precision**2 * (given * rows.spread).sum(-1)
    return HalfStep(rows, float(square[seen].double().sum()), float(linear[seen].double().sum()), shift)


def _points(
    cells: Cells, other: Tensor, shared: Tensor, pull: Tensor | None, right: Tensor, short: float, workers: int
) -> Tensor:
    """Points of all rows: by Woodbury's identity where a row has at most ``short`` cells, else by Cholesky.

    With shared = L L', whitened rows x L^-T of the other side and start = L^-1 pull, the point is L^-T times
    start + X' (W^-1 + X X')^-1 (W^-1 y - X start).
    """
    size = len(shared)
    eye = torch.eye(size, dtype=torch.float64, device=shared.device)
    root = torch.linalg.solve_triangular(_cholesky(shared.double()), eye, upper=False).to(shared)
    compiled, left = kernels.compiled_for(other, right, cells.weights, cells.targets), None
    most = kernels.most_cells(size, short) if compiled is not None else 0
    asked = cells.lengths <= (most if most and size <= kernels.SMALL else short)
    whitened = kernels.Whitened.of(other, root, int(cells.lengths[asked].sum()), workers)
    if most:
        found, left = kernels.Points(cells, whitened, pull).solved(compiled, most, workers)
        if size <= kernels.SMALL:
            base = shared, 0.0, None
            kernels.normals(compiled, cells, Gaussians(other), base, right, left, Gaussians(found), workers)
            return found
    else:
        found = torch.zeros_like(right)
    if pull is not None and left is None:
        rest = (cells.observed & (cells.lengths == 0)).nonzero().squeeze(-1)
        found[rest] = pull[rest] @ root.mT @ root

    def solve(rows: Tensor) -> None:
        cell = cells.padded(rows)
        if _is_long(cell, short):
            x = F.embedding(cell.others, other)
            precisions = shared + (x * cell.weights[..., None]).mT @ x
            found[rows] = torch.cholesky_solve(right[rows, :, None], _cholesky(precisions)).squeeze(-1)
            return
        start = None if pull is None else pull.index_select(0, rows) @ root.mT
        found.index_copy_(0, rows, _woodbury(cell, whitened.at(cell.others), start) @ root)

    in_parallel(solve, cells.blocks(lambda length: length * size + min(length, size) ** 2, left), workers)
    return found


def _is_long(cell: Padded, short: float) -> bool:
    """Whether rows have more cells than ``short``, or one with a weight that Woodbury's identity does not take."""
    return cell.others.shape[1] > short or bool((cell.weights[cell.real] <= 0).any())


def _woodbury(cell: Padded, x: Tensor, start: Tensor | None) -> Tensor:
    """Points of rows in coordinates where what they share is I: start + X' (W^-1 + X X')^-1 (W^-1 y - X start).

    Shapes: ``x`` (n_rows, length, size) the other side's rows in these coordinates, ``start`` (n_rows, size) or 0.
    """
    inverse = torch.where(cell.real, 1 / cell.weights, 1.0)
    if not cell.full:
        x = x * cell.real[..., None]
    residual = cell.targets * inverse
    if start is not None:
        residual = residual - (x * start[:, None]).sum(-1)
    if x.shape[1] == 1:
        weight = (residual / (x.square().sum(-1) + inverse))[..., None]
    else:
        system = x @ x.mT
        system.diagonal(dim1=-2, dim2=-1).add_(inverse)
        weight = torch.cholesky_solve(residual[..., None], _cholesky(system))
    point = (weight.mT @ x).squeeze(1)
    return point if start is None else point + start


def _points_by_row(
    cells: Cells,
    other: Tensor,
    base: tuple[Tensor, float, Tensor],
    pull: Tensor | None,
    right: Tensor,
    short: float,
    workers: int,
) -> Tensor:
    """Points of all rows where what row i shares is g_i G + precision I, ``base`` being G, the precision and g.

    With G = Q diag(e) Q' that is diagonal for all rows in the coordinates Q' w, in which Woodbury's identity is used.
    """
    gram, precision, by_row = base
    size, found = len(gram), torch.zeros_like(right)
    values, axes = torch.linalg.eigh(gram.double())
    values, axes = values.clamp(min=0).to(gram), axes.to(gram)
    eye, turned = torch.eye(size, dtype=gram.dtype, device=gram.device), other @ axes
    pulled = None if pull is None else pull @ axes
    if pulled is not None:
        rest = (cells.observed & (cells.lengths == 0)).nonzero().squeeze(-1)
        found[rest] = (pulled[rest] / (by_row[rest, None] * values + precision)) @ axes.mT

    def solve(rows: Tensor) -> None:
        cell = cells.padded(rows)
        if _is_long(cell, short):
            x = F.embedding(cell.others, other)
            precisions = by_row[rows, None, None] * gram + precision * eye + (x * cell.weights[..., None]).mT @ x
            found[rows] = torch.cholesky_solve(right[rows, :, None], _cholesky(precisions)).squeeze(-1)
            return
        scale = (by_row[rows, None] * values + precision).rsqrt()
        x = F.embedding(cell.others, turned) * scale[:, None]
        start = None if pulled is None else pulled.index_select(0, rows) * scale
        found.index_copy_(0, rows, (_woodbury(cell, x, start) * scale) @ axes.mT)

    in_parallel(solve, cells.blocks(lambda length: length * size + min(length, size) ** 2), workers)
    return found


def _rows(
    cells: Cells,
    other: Gaussians,
    gram: Tensor,
    right: Tensor,
    precision: float,
    full: bool,
    workers: int,
    by_row: Tensor | None,
) -> Gaussians:
    """Normals of all rows, of which other workers may have cells too."""
    if cells.elsewhere is None:
        return _normals(cells, other, gram, right, precision, full, workers, by_row)
    marginal = other.marginal()

    def solve(rows: Tensor, cells: Cells, other: Gaussians, right: Tensor) -> Gaussians:
        own = None if by_row is None else by_row[rows]
        return _normals(cells, other, gram, right, precision, full, workers, own)

    return cells.elsewhere.normals(cells, right, lambda rows: _sums(cells, marginal, rows), solve)


def _sums(cells: Cells, other: Gaussians, rows: Tensor) -> Tensor:
    """Sum over the cells of some rows of (c - b) E[w w'], (n_rows, size, size)."""
    size = other.loc.shape[1]
    if (compiled := kernels.compiled_for(other.loc, cells.weights)) is not None:
        return kernels.sums(compiled, cells, other, rows)
    found = other.loc.new_zeros(len(rows), size, size)
    lengths, order = cells.lengths[rows].sort()
    begin = int((lengths == 0).sum())
    while begin < len(rows):
        most = int(lengths[begin]) + int(lengths[begin]) // 4
        room = max(1, block_bytes(found) // found.element_size() // (most * size + size**2))
        end = min(int(torch.searchsorted(lengths, most, right=True)), begin + room)
        part = order[begin:end]
        cell = cells.padded(rows[part])
        x = F.embedding(cell.others, other.loc)
        found[part] = (x * cell.weights[..., None]).mT @ x + _spreads(other, cell)
        begin = end
    return found


def _spreads(other: Gaussians, cell: Padded) -> Tensor:
    """The part of these sums that is of covariances, (n_rows, size, size), or 0."""
    if other.covariance is not None:
        size = other.loc.shape[1]
        blocks = other.block[cell.others]  # type: ignore[index]
        table = other.covariance.flatten(1)
        return F.embedding_bag(blocks, table, mode="sum", per_sample_weights=cell.weights).view(-1, size, size)
    if other.variance is not None:
        return torch.diag_embed((other.variance[cell.others] * cell.weights[..., None]).sum(1))
    return other.loc.new_zeros(())


def _normals(
    cells: Cells,
    other: Gaussians,
    gram: Tensor,
    right: Tensor,
    precision: float,
    full: bool,
    workers: int,
    by_row: Tensor | None = None,
) -> Gaussians:
    """Normals of all rows with full or diagonal covariances."""
    size = len(gram)
    eye = torch.eye(size, dtype=gram.dtype, device=gram.device)
    shared = gram + precision * eye
    tril = _cholesky(shared)
    own = cells.lengths > 0 if by_row is None else cells.observed
    n_own = int(own.sum())
    block = torch.where(cells.observed, n_own, n_own + 1)
    block[own] = torch.arange(n_own, device=block.device)
    loc = torch.empty_like(right)
    loc[~own] = torch.cholesky_solve(right[~own].mT, tril).mT
    if full:
        covariance = right.new_empty(n_own + 2, size, size)
        covariance[n_own], covariance[n_own + 1] = torch.cholesky_inverse(tril), eye / precision
        log_det = right.new_empty(n_own + 2)
        log_det[n_own], log_det[n_own + 1] = -_log_det(tril), -size * math.log(precision)
    else:
        variance = torch.where(cells.observed[:, None], shared.diagonal().reciprocal(), 1 / precision)
    other = kernels.marginal(other, workers)
    if full:
        found = Gaussians(loc, covariance=covariance, block=block, log_det=log_det)
    else:
        found = Gaussians(loc, variance=variance)
    compiled = kernels.compiled_for(other.loc, gram, right, cells.weights)
    if compiled is not None:
        rows, base = own.nonzero().squeeze(-1), (gram, precision, by_row)
        kernels.normals(compiled, cells, other, base, right, rows, found, workers)
        return found
    table = None if other.covariance is None else other.covariance.flatten(1)

    def solve(rows: Tensor) -> None:
        cell = cells.padded(rows)
        x = F.embedding(cell.others, other.loc)
        base = shared if by_row is None else by_row[rows, None, None] * gram + precision * eye
        precisions = base + (x * cell.weights[..., None]).mT @ x
        if table is not None and cell.others.shape[1]:
            blocks = other.block[cell.others]  # type: ignore[index]
            more = F.embedding_bag(blocks, table, mode="sum", per_sample_weights=cell.weights)
            precisions += more.view_as(precisions)
        elif other.variance is not None:
            more = (other.variance[cell.others] * cell.weights[..., None]).sum(1)
            precisions.diagonal(dim1=-2, dim2=-1).add_(more)
        tril = _cholesky(precisions)
        loc[rows] = torch.cholesky_solve(right[rows, :, None], tril).squeeze(-1)
        if full:
            covariance[block[rows]], log_det[block[rows]] = torch.cholesky_inverse(tril), -_log_det(tril)
        else:
            variance[rows] = precisions.diagonal(dim1=-2, dim2=-1).reciprocal()

    parts = cells.blocks(lambda length: length * size + 3 * size**2)
    if by_row is not None:
        without = (cells.observed & (cells.lengths == 0)).nonzero().squeeze(-1)
        parts = [*parts, *(part for part in without.split(max(1, block_bytes(right) // (32 * size**2))) if len(part))]
    in_parallel(solve, parts, workers)
    return found


def _cholesky(matrices: Tensor) -> Tensor:
    tril, info = torch.linalg.cholesky_ex(matrices)
    if bool(info.any()):
        raise indefinite()
    return tril


def _log_det(tril: Tensor) -> Tensor:
    return 2 * tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
