r"""Half-steps row by row, compiled by numba: what :mod:`inference.algorithms.kernels` calls where numba is there.

Each kernel takes a list of rows, holds no lock of Python's and writes these rows alone, so that threads which share out
the rows change no bit. A square matrix of work has ``pad`` columns, a multiple of :data:`LANES`, and of a symmetric one
the upper triangle counts. Almost all of the arithmetic is in one operation, :func:`tile`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

LANES, HEIGHT = 8, 4
"""Columns and rows of a tile."""
LIBERTIES = {"reassoc", "contract", "nsz"}
"""What may be done to the order of sums; infinities and numbers that are none are kept."""
DONE, LEFT, INDEFINITE = 0, 1, 2
"""What became of a row: solved; not for this kernel; not positive definite in this floating-point type."""


def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled at its first call and kept on disk where numba finds a folder that can be written."""
    how = {"nogil": True, "fastmath": LIBERTIES, "error_model": "numpy"}
    try:
        return njit(cache=True, **how)(function)
    except RuntimeError:  # there is no such folder
        return njit(**how)(function)


_inline = register_jitable(fastmath=LIBERTIES, error_model="numpy")


@intrinsic
def tile(typing, out, out_step, left, left_step, right, right_step, n):  # type: ignore[no-untyped-def]
    """Out[r, c] += sum over s < n of left[s, r] right[s, c], of HEIGHT rows r and LANES columns c.

    The arrays are flat and begin at the tile; their rows are so many ``step`` apart. The tile stays in registers.
    """
    at = types.intp
    signature = types.void(out, at, left, at, right, at, at)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        number = context.get_value_type(signature.args[0].dtype)
        vector, align = ir.VectorType(number, LANES), signature.args[0].dtype.bitwidth // 8
        data = [context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (0, 2, 4)]
        out_step, left_step, right_step, n = (arguments[k] for k in (1, 3, 5, 6))
        nothing = ir.Constant(vector, ir.Undefined)
        first, everywhere = (ir.Constant(kind, None) for kind in (ir.IntType(32), ir.VectorType(ir.IntType(32), LANES)))
        free = ("contract", "reassoc", "nsz")

        def place(array, step, k):  # type: ignore[no-untyped-def]
            return builder.gep(array, [builder.mul(step, k)])

        numbers = (ir.Constant(out_step.type, r) for r in range(HEIGHT))
        rows = [builder.bitcast(place(data[0], out_step, r), vector.as_pointer()) for r in numbers]
        sums = [cgutils.alloca_once(builder, vector) for _ in rows]
        for held, row in zip(sums, rows, strict=True):
            builder.store(builder.load(row, align=align), held)
        with cgutils.for_range(builder, n) as loop:
            at_right = place(data[2], right_step, loop.index)
            columns = builder.load(builder.bitcast(at_right, vector.as_pointer()), align=align)
            at_left = place(data[1], left_step, loop.index)
            for r, held in enumerate(sums):
                one = builder.load(builder.gep(at_left, [ir.Constant(ir.IntType(64), r)]))
                one = builder.insert_element(nothing, one, first)
                one = builder.shuffle_vector(one, nothing, everywhere)
                product = builder.fmul(one, columns, flags=free)
                builder.store(builder.fadd(builder.load(held), product, flags=free), held)
        for held, row in zip(sums, rows, strict=True):
            builder.store(builder.load(held), row, align=align)
        return context.get_dummy_value()

    return signature, generate


@_inline
def _factor(a, minus, size):  # type: ignore[no-untyped-def]
    """Upper Cholesky factor U of a in its place, and -U in ``minus``; a column beyond a becomes U^-T times it.

    Returns log det a, or NaN where a is not positive definite.
    """
    pad, flat, below, log_det = a.shape[1], a.reshape(-1), minus.reshape(-1), 0.0
    for i in range(0, size, HEIGHT):
        first = i // LANES * LANES
        for c in range(first, pad, LANES):
            tile(flat[i * pad + c :], pad, below[i:], pad, flat[c:], pad, i)
        for r in range(i, min(i + HEIGHT, size)):
            row, copy = flat[r * pad + first : (r + 1) * pad], below[r * pad + first : (r + 1) * pad]
            for j in range(i, r):
                above = flat[j * pad + first : (j + 1) * pad]
                u = above[r - first]
                for k in range(pad - first):
                    row[k] -= u * above[k]
            pivot = row[r - first]
            if not pivot > 0:
                return np.nan
            log_det += np.log(pivot)
            root = 1 / np.sqrt(pivot)
            for k in range(pad - first):
                row[k] *= root
                copy[k] = -row[k]
    return log_det


@_inline
def _invert(a, minus, lower, size):  # type: ignore[no-untyped-def]
    """``lower`` = U^-T of the factor U in a, of which ``minus`` has -U; then a = U^-1 U^-T, its lower triangle."""
    pad, flat, u, low = a.shape[1], a.reshape(-1), minus.reshape(-1), lower.reshape(-1)
    for i in range(0, size, HEIGHT):
        low[i * pad : (i + HEIGHT) * pad] = 0
        for c in range(0, i, LANES):
            tile(low[i * pad + c :], pad, u[c * pad + i :], pad, low[c * pad + c :], pad, i - c)
        for r in range(i, min(i + HEIGHT, size)):
            width = (r // LANES + 1) * LANES
            row = low[r * pad : r * pad + width]
            row[r] += 1
            for j in range(i, r):
                above, scale = low[j * pad : j * pad + width], u[j * pad + r]
                for k in range(width):
                    row[k] += scale * above[k]
            scale = 1 / flat[r * pad + r]
            for k in range(width):
                row[k] *= scale
    for i in range(0, size, HEIGHT):
        flat[i * pad : (i + HEIGHT) * pad] = 0
        for c in range(0, i + HEIGHT, LANES):
            tile(flat[i * pad + c :], pad, low[i * pad + i :], pad, low[i * pad + c :], pad, size - i)


# --- sums ------------------------------------------------------------------------------------------------------------


@_kernel
def inner(one, other, found):  # type: ignore[no-untyped-def]
    """Inner products of the rows of two matrices, (n_rows,)."""
    for i in range(len(found)):
        a, b, total = one[i], other[i], found[i] * 0
        for k in range(len(a)):
            total += a[k] * b[k]
        found[i] = total


@_kernel
def shift(indptr, others, targets, other, found):  # type: ignore[no-untyped-def]
    """Sum over each row's cells of target times the other side's row, (n_rows, size)."""
    for i in range(len(found)):
        row = found[i]
        row[:] = 0
        for s in range(indptr[i], indptr[i + 1]):
            target, cell = targets[s], other[others[s]]
            for k in range(len(row)):
                row[k] += target * cell[k]


@_kernel
def put(rows, values, found):  # type: ignore[no-untyped-def]
    """Rows of ``found`` (n_rows, size) become ``values`` (n, size)."""
    for b in range(len(rows)):
        row, value = found[rows[b]], values[b]
        for k in range(len(row)):
            row[k] = value[k]


@_kernel
def tally(scores, asked, found):  # type: ignore[no-untyped-def]
    """Of each row add up how many scores are above k of its ascending targets, (n_rows, n_targets + 1); not of k = 0.

    A score that is above none of the targets, as almost all are, takes one comparison.
    """
    for i in range(len(scores)):
        row, targets, count = scores[i], asked[i], found[i]
        lowest = targets[0]
        for j in range(len(row)):
            score = row[j]
            if score > lowest:
                low, high = 1, len(targets)
                while low < high:
                    middle = (low + high) // 2
                    if score > targets[middle]:
                        low = middle + 1
                    else:
                        high = middle
                count[low] += 1


# --- points ----------------------------------------------------------------------------------------------------------


@_kernel
def points(cells, whitened, most, rows, starts, loc, state):  # type: ignore[no-untyped-def]
    """Points of some rows of at most ``most`` cells of positive weight, by Woodbury's identity.

    ``cells`` are (indptr, others, weights, targets), X the rows of ``whitened`` at a row's cells. Row b of ``loc`` (n,
    size) is that of ``rows[b]``: the point without cells before, which is 0 unless one ``starts`` elsewhere, and after
    it has X' (W^-1 + X X')^-1 (W^-1 y - X loc) added. ``state`` (n,) says what became of each.
    """
    indptr, others, weights, targets = cells
    size = whitened.shape[1]
    x = np.empty((most, size), loc.dtype)
    system, right = np.empty((most, most), loc.dtype), np.empty(most, loc.dtype)
    for b in range(len(rows)):
        first, n, row = indptr[rows[b]], indptr[rows[b] + 1] - indptr[rows[b]], loc[b]
        state[b] = DONE
        for s in range(n):
            weight, cell, mine = weights[first + s], whitened[others[first + s]], x[s]
            if not weight > 0:
                state[b] = LEFT
                break
            inverse, dot = 1 / weight, weight * 0
            for k in range(size):
                mine[k] = cell[k]
            if starts:
                for k in range(size):
                    dot += mine[k] * row[k]
            right[s] = inverse * targets[first + s] - dot
            _dots(x, s, size, system[s])
            system[s, s] += inverse
        if state[b] == LEFT:
            continue
        if not _solve(system, n, right):
            state[b] = INDEFINITE
            continue
        for s in range(n):
            mine, weight = x[s], right[s]
            for k in range(size):
                row[k] += weight * mine[k]


@_inline
def _dots(x, s, size, out):  # type: ignore[no-untyped-def]
    """Inner products of row s of x with rows 0 to s."""
    mine, t, zero = x[s], 0, x[s, 0] * 0
    while t + 4 <= s + 1:
        x0, x1, x2, x3 = x[t], x[t + 1], x[t + 2], x[t + 3]
        dot0 = dot1 = dot2 = dot3 = zero
        for k in range(size):
            dot0 += mine[k] * x0[k]
            dot1 += mine[k] * x1[k]
            dot2 += mine[k] * x2[k]
            dot3 += mine[k] * x3[k]
        out[t], out[t + 1], out[t + 2], out[t + 3] = dot0, dot1, dot2, dot3
        t += 4
    while t <= s:
        other, dot = x[t], zero
        for k in range(size):
            dot += mine[k] * other[k]
        out[t] = dot
        t += 1


@_inline
def _solve(system, n, right):  # type: ignore[no-untyped-def]
    """Right becomes system^-1 right, of the lower triangle of a small matrix; False where it is not definite."""
    for i in range(n):
        for j in range(i):
            value = system[i, j]
            for k in range(j):
                value -= system[i, k] * system[j, k]
            system[i, j] = value * system[j, j]
        pivot = system[i, i]
        for k in range(i):
            pivot -= system[i, k] * system[i, k]
        if not pivot > 0:
            return False
        system[i, i] = 1 / np.sqrt(pivot)
    for i in range(n):
        value = right[i]
        for k in range(i):
            value -= system[i, k] * right[k]
        right[i] = value * system[i, i]
    for i in range(n - 1, -1, -1):
        value = right[i]
        for k in range(i + 1, n):
            value -= system[k, i] * right[k]
        right[i] = value * system[i, i]
    return True


# --- Normals ---------------------------------------------------------------------------------------------------------


@_kernel
def normals(cells, other, base, right, rows, found, state):  # type: ignore[no-untyped-def]
    """Normals of some rows, each from its precision: base + sum over cells of weight (m m' + S).

    ``cells`` are (indptr, others, weights); ``other`` the other side's (means, variances, covariances, block of each
    row), ``base`` (gram, precision, by_row), ``found`` (means, variances, covariances, log determinants, block of each
    row). What there is not is empty: by_row where it is 1 for all. ``state`` (n,) says what became of each row.
    """
    indptr, others, weights = cells
    gram, precision, by_row = base
    means, variances, covariances, log_dets, block = found
    size = len(gram)
    pad = (size // LANES + 1) * LANES
    shape = size + -size % HEIGHT, (size // LANES + 1) * LANES
    a, minus, lower = np.zeros(shape, gram.dtype), np.zeros(shape, gram.dtype), np.zeros(shape, gram.dtype)
    gathered, weighted = np.zeros((LANES, pad), gram.dtype), np.zeros((LANES, pad), gram.dtype)
    for b in range(len(rows)):
        i = rows[b]
        first, last = indptr[i], indptr[i + 1]
        state[b] = DONE
        a[size:] = 0
        for k in range(size):
            if len(by_row):
                for m in range(k, size):
                    a[k, m] = by_row[i] * gram[k, m]
            else:
                for m in range(k, size):
                    a[k, m] = gram[k, m]
            for m in range(size, pad):
                a[k, m] = 0
            a[k, k] += precision
        _add_cells(a, size, others[first:last], weights[first:last], other, gathered, weighted)
        for k in range(size):
            a[k, size] = right[i, k]
            if len(variances):
                variances[i, k] = 1 / a[k, k]
        log_det = _factor(a, minus, size)
        if np.isnan(log_det):
            state[b] = INDEFINITE
        elif len(covariances):
            _with_inverse(a, minus, lower, size, means[i], covariances[block[i]])
            log_dets[block[i]] = -log_det
        else:
            _back(a, size, means[i])


@_kernel
def sums(cells, other, rows, found):  # type: ignore[no-untyped-def]
    """Sums over the cells of some rows of weight (m m' + S), (n, size, size); the arguments as in :func:`normals`."""
    indptr, others, weights = cells
    size = found.shape[1]
    pad = (size // LANES + 1) * LANES
    a = np.zeros((size + -size % HEIGHT, pad), found.dtype)
    gathered, weighted = np.zeros((LANES, pad), found.dtype), np.zeros((LANES, pad), found.dtype)
    for b in range(len(rows)):
        first, last = indptr[rows[b]], indptr[rows[b] + 1]
        a[:] = 0
        _add_cells(a, size, others[first:last], weights[first:last], other, gathered, weighted)
        for k in range(size):
            for m in range(k, size):
                found[b, k, m] = a[k, m]
                found[b, m, k] = a[k, m]


@_inline
def _add_cells(a, size, others, weights, other, gathered, weighted):  # type: ignore[no-untyped-def]
    """Upper triangle of a += sum over cells of weight (m m' + S)."""
    _add_means(a, size, others, weights, other[0], gathered, weighted)
    if len(other[2]):
        _add_covariances(a, size, others, weights, other[2], other[3])
    elif len(other[1]):
        for s in range(len(others)):
            variance, weight = other[1][others[s]], weights[s]
            for k in range(size):
                a[k, k] += weight * variance[k]


@_inline
def _add_means(a, size, others, weights, loc, gathered, weighted):  # type: ignore[no-untyped-def]
    """Upper triangle of a += sum over cells of weight m m', so many cells at a time."""
    pad, flat, ours, theirs = a.shape[1], a.reshape(-1), gathered.reshape(-1), weighted.reshape(-1)
    for start in range(0, len(others), LANES):
        n = min(LANES, len(others) - start)
        for s in range(n):
            m, weight, mine, times = loc[others[start + s]], weights[start + s], gathered[s], weighted[s]
            for k in range(size):
                mine[k] = m[k]
                times[k] = weight * m[k]
        for i in range(0, size, HEIGHT):
            for c in range(i // LANES * LANES, size, LANES):
                tile(flat[i * pad + c :], pad, theirs[i:], pad, ours[c:], pad, n)


@_inline
def _add_covariances(a, size, others, weights, covariance, block):  # type: ignore[no-untyped-def]
    """Upper triangle of a += sum over cells of weight S, four cells at a time."""
    n = len(others)
    for start in range(0, n, 4):
        last = n - 1
        b0, b1 = block[others[start]], block[others[min(start + 1, last)]]
        b2, b3 = block[others[min(start + 2, last)]], block[others[min(start + 3, last)]]
        zero = weights[start] * 0
        w0, w1 = weights[start], weights[start + 1] if start + 1 < n else zero
        w2, w3 = (weights[start + 2] if start + 2 < n else zero), (weights[start + 3] if start + 3 < n else zero)
        for k in range(size):
            row, s0, s1 = a[k, k:size], covariance[b0, k, k:size], covariance[b1, k, k:size]
            s2, s3 = covariance[b2, k, k:size], covariance[b3, k, k:size]
            for m in range(size - k):
                row[m] += (w0 * s0[m] + w1 * s1[m]) + (w2 * s2[m] + w3 * s3[m])


@_inline
def _with_inverse(a, minus, lower, size, mean, covariance):  # type: ignore[no-untyped-def]
    """The inverse of what a's factor U is of, and mean = U^-1 y, y = U^-T right in the column beyond it."""
    y = a[:size, size].copy()
    _invert(a, minus, lower, size)
    mean[:] = 0
    for k in range(size):
        row, value = lower[k], y[k]
        for m in range(k + 1):
            mean[m] += value * row[m]
        for m in range(k + 1):
            covariance[k, m] = a[k, m]
            covariance[m, k] = a[k, m]


@_inline
def _back(a, size, mean):  # type: ignore[no-untyped-def]
    """Mean = U^-1 y, y in the column beyond the factor U."""
    for k in range(size - 1, -1, -1):
        row, value = a[k], a[k, size]
        for m in range(k + 1, size):
            value -= row[m] * mean[m]
        mean[k] = value / row[k]
