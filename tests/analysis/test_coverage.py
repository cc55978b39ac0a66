"""Coverage and PIT: exact where the truth is one more draw of the posterior, caught where it is not."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import kstest, norm

from analysis.coverage import CURVE_LEVELS, GRID, LEVELS, PIT_BINS, coverage, draw_coverage, pit_bins, pit_summary
from pyro_cvae.errors import InputError
from tests.analysis.planted import click_fit, gaussian_fit

N_FITS, N_DRAWS = 200, 199


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["mean-field", "full"])
def test_a_truth_that_the_posterior_drew_is_uniform(kind, failure_rate):
    """p-values are uniform, and intervals of 50, 80 and 90 % hold the truth as often as they say."""
    results = [coverage(gaussian_fit(seed, kind=kind), draws=N_DRAWS, seed=seed) for seed in range(N_FITS)]
    comparisons = 2 * 2 * (1 + len(LEVELS))
    jitter = np.random.default_rng(0).random(N_FITS) / (N_DRAWS + 1)
    for target in ("true score", "held-out rating"):
        p_values = np.array([result.pits[target].p_value for result in results]) - jitter
        assert kstest(p_values, "uniform").pvalue > failure_rate / comparisons
        for level in LEVELS:
            covered = np.array([result.pits[target].covered[round(100 * level) - 1] for result in results])
            z = (covered.mean() - level) / (covered.std(ddof=1) / N_FITS**0.5)
            assert abs(z) < norm.isf(failure_rate / 2 / comparisons)


@pytest.mark.statistical
@pytest.mark.parametrize(("factor", "sign", "largest"), [(0.5, -1, 1 / (N_DRAWS + 1)), (2.0, 1, 0.05)])
def test_standard_deviations_that_are_wrong_are_caught(factor, sign, largest):
    """Halved sds cover too little, doubled ones too much, in every one of 20 seeds."""
    for seed in range(20):
        result = coverage(gaussian_fit(seed, sd_factor=factor), draws=N_DRAWS, seed=seed)
        row = result.table.set_index(["target", "group"]).loc["true score", "all"]
        assert row["p_value"] <= largest
        assert sign * (row["covered@50"] - row["high@50" if sign > 0 else "low@50"]) > 0
        assert sign * (row["normal@80"] - 0.8) > 0.02


def test_bins_hold_the_rank_among_truth_and_draws():
    rng = np.random.default_rng(0)
    truth, draws = rng.standard_normal(3000), rng.standard_normal((49, 3000))
    truth[0], truth[1] = 99.0, -99.0
    bins = pit_bins(truth, draws, seed=0)
    together = np.vstack([truth, draws])
    rank = np.empty_like(bins, int)
    for row in range(50):
        rank[row] = (together < together[row]).sum(0)
    assert ((PIT_BINS * rank // 50 <= bins) & (bins < PIT_BINS * (rank + 1) / 50)).all()
    assert bins[0, 0] >= PIT_BINS * 49 / 50 and bins[0, 1] < PIT_BINS / 50
    assert len(np.unique(bins - PIT_BINS * rank // 50)) == PIT_BINS / 50  # uniform within a rank


def test_summary_equals_counting():
    """ECDF, coverage, their range over draws and the p-value, from the bins one by one."""
    rng = np.random.default_rng(0)
    bins = rng.integers(0, PIT_BINS, (40, 300)).astype(np.uint8)
    bins[0] = bins[0] // 2 + 50
    pit = pit_summary(bins)
    np.testing.assert_allclose(pit.ecdf, [(bins[0] < g * PIT_BINS - 1e-6).mean() for g in GRID], rtol=1e-12)

    def inside(row, level):
        p = (bins[row] + 0.5) / PIT_BINS
        return (np.abs(p - 0.5) < level / 2).mean()

    np.testing.assert_allclose(pit.covered, [inside(0, level) for level in CURVE_LEVELS], rtol=1e-12)
    of_draws = np.array([[inside(row, level) for level in CURVE_LEVELS] for row in range(1, 40)])
    np.testing.assert_allclose(pit.low, np.quantile(of_draws, 0.025, axis=0), rtol=1e-12)
    np.testing.assert_allclose(pit.high, np.quantile(of_draws, 0.975, axis=0), rtol=1e-12)
    assert pit.p_value == 1 / 40
    largest = np.abs(pit.ecdf - GRID) / pit.band
    assert largest.max() > 1


def test_the_band_holds_nineteen_of_twenty_draws_as_a_whole():
    bins = np.random.default_rng(0).integers(0, PIT_BINS, (401, 200)).astype(np.uint8)
    band = pit_summary(bins).band
    ecdf = np.array([[(row < g).mean() for g in range(1, PIT_BINS)] for row in bins[1:]])
    assert (np.abs(ecdf - GRID) <= band + 1e-12).all(1).mean() == 0.95


def test_quantiles_of_draws_and_the_normal_agree_where_scores_are_normal():
    """With users known almost exactly u.v is Normal: both ways must cover the same cells but for Monte Carlo error."""
    fit = gaussian_fit(3)
    fit.posterior.u.variance.fill_(1e-18)
    table = coverage(fit, draws=4000).table.set_index(["target", "group"])
    for level in (50, 80, 90):
        row = table.loc["true score", "all"]
        assert abs(row[f"covered@{level}"] - row[f"normal@{level}"]) < 0.03
    assert (table["n_cells"] > 0).all()


def test_groups_are_parts_of_the_cells():
    """Hot, warm and cold, and each kind of bins, add up; ratings are asked where the precision is above b."""
    for fit in (gaussian_fit(0), gaussian_fit(0, items=True)):
        table = coverage(fit, draws=50).table
        confidences = fit.split.test.confidences
        for target, n in (("true score", len(confidences)), ("held-out rating", int((confidences > 0.01).sum()))):
            part = table[table["target"] == target]
            assert part.loc[part["by"] == "all", "n_cells"].tolist() == [n]
            for _, of in part.groupby("by"):
                assert of["n_cells"].sum() == n
    cold = gaussian_fit(0, items=True)
    assert set(coverage(cold, draws=50).table["by"]) == {"all", "history"}  # all items are cold: no groups to tell


def test_many_cells_are_thinned_and_the_seed_decides():
    fit = gaussian_fit(0)
    first, again, other = (coverage(fit, draws=50, max_cells=60, seed=seed).table for seed in (1, 1, 2))
    assert first["n_cells"].max() == 60 and first.equals(again) and not first.equals(other)


def test_a_point_has_no_uncertainty_and_clicks_no_right_intervals():
    fit = gaussian_fit(0, kind="point")
    result = coverage(fit, "map")
    assert result.table.empty and not result.pits and result.n_cells == len(fit.split.test)
    with pytest.raises(InputError, match="no draws of the model"):
        coverage(click_fit())
    clicks = click_fit()
    clicks.dataset = dataclasses.replace(clicks.dataset, truth=None)
    with pytest.raises(InputError, match="is not known"):
        coverage(clicks)


def test_the_figure_has_every_fit():
    results = [coverage(gaussian_fit(0, kind=kind), kind, draws=50) for kind in ("mean-field", "full", "point")]
    drawn = draw_coverage(results)
    curve, _, dots = drawn.axes[:3]
    assert len(drawn.axes) == 6
    assert [text.get_text() for text in curve.get_legend().get_texts()] == ["mean-field", "full"]
    assert [tick.get_text() for tick in dots.get_xticklabels()] == ["mean-field", "full", "point"]
    assert [text.get_text() for text in dots.texts] == ["no uncertainty"]
    covered = sorted(
        line.get_ydata()[0] for line in dots.lines if line.get_marker() in "osD" and len(line.get_xdata()) == 1
    )
    assert covered == sorted(100 * r.table[f"covered@{p}"].iloc[0] for r in results[:2] for p in (50, 80, 90))
