"""Exported draws against the posterior, the Pyro model and dense brute force; ArviZ's functions; the NetCDF file."""

import importlib.util
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import arviz
import h5netcdf
import h5py
import numpy as np
import pytest
import torch
import xarray
from packaging.version import Version
from pyro import poutine
from torch.distributions import Normal

import inference
from analysis import posterior as exported
from analysis.draws import streams
from analysis.draws.netcdf import save
from analysis.draws.pairs import spread_rows
from analysis.draws.psis import psis
from analysis.draws.streams import draw_blocks
from analysis.draws.user_rows import UserRows
from analysis.posterior import main, pit, to_datatree, to_inference_data
from inference.fitting import Fit
from models.build import content_likelihood, observe
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.reading import Reading
from pyro_cvae.data.simulated import simulated, simulated_gaussian
from pyro_cvae.errors import InputError, MachineError, run_command

SMALL: dict[str, Any] = {
    "factors": 3, "hidden": (8,), "pretrain_epochs": 2, "epochs": 2, "lambda_u": 1.0, "lambda_v": 5.0, "a": 1.0,
    "b": 0.01, "dtype": "float64", "threads": 1,
}  # fmt: skip
CLICKS = {"train_per_user": 4, "a": 4.0, "b": 0.2}
KINDS: dict[str, dict[str, Any]] = {
    "mean-field": {},
    "non-centred": {"parametrization": "non-centred"},
    "full": {"method": "coordinate", "sweeps": 2},
    "structured": {"method": "coordinate", "sweeps": 2, "guide": "structured"},
    "clicks": {"method": "coordinate", "sweeps": 2, "guide": "structured", **CLICKS},
    "zeros": {"method": "coordinate", "sweeps": 2, "unrated": "zeros", **CLICKS},
    "popular": {"method": "coordinate", "sweeps": 2, "b_power": 0.7, **CLICKS},
}


@pytest.fixture(scope="module")
def fits() -> dict[str, Fit]:
    numbers = simulated_gaussian(n_users=12, n_items=17, n_words=30, n_factors=3)
    clicks = simulated(n_users=15, n_items=60, n_words=30, n_factors=3, clicks_per_user=14)
    return {kind: inference.fit(clicks if "a" in o else numbers, **SMALL | o) for kind, o in KINDS.items()}


@pytest.fixture(scope="module")
def point() -> Fit:
    return inference.fit(simulated_gaussian(n_users=12, n_items=17, n_words=30, n_factors=3), **SMALL, mode="map")


def whole(fit: Fit, **options: Any) -> Any:
    """Everybody and everything, with the log-likelihood by user."""
    return to_datatree(fit, n_users=0, n_items=0, user_log_likelihood=True, **options)


def ends(tree: Any, dim: str) -> list[tuple[Any, Any]]:
    """The ids of user and item of each pair of a dimension."""
    data = tree["predictions_constant_data" if dim == "held_out" else "constant_data"]
    return list(zip(data[f"{dim}_user"].values.tolist(), data[f"{dim}_item"].values.tolist(), strict=True))


# --- draws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_those_of_the_posterior(fits, kind):
    """In the order of the ids that were asked for; score and v_dagger belong to the same draws."""
    fit = fits[kind]
    users, items = fit.dataset.user_ids[[7, 2]], fit.dataset.item_ids[[5, 0, 9]]
    whole_tree = to_datatree(fit, users, items, draws=20, seed=3)
    tree = whole_tree["posterior"]
    drawn = fit.posterior.select(torch.tensor([2, 7]), torch.tensor([0, 5, 9])).sample(20, 3)
    assert tree["user"].values.tolist() == users.tolist() and tree["item"].values.tolist() == items.tolist()
    assert np.array_equal(tree["u"].values[0], drawn["u"][:, [1, 0]])
    assert np.array_equal(tree["v"].values[0], drawn["v"][:, [1, 0, 2]])
    assert np.array_equal(tree["z"].values[0], drawn["z"][:, [1, 0, 2]])
    np.testing.assert_allclose(tree["v_dagger"], tree["v"] - tree["z"], rtol=1e-13)
    u, v = (drawn[name].numpy() for name in "uv")
    for p, (user, item) in enumerate(ends(whole_tree, "pair")):
        assert tree["pair"].values[p] == f"{user}, {item}"
        i, j = sorted(users).index(user), sorted(items).index(item)
        np.testing.assert_allclose(tree["score"].values[0, :, p], (u[:, i] * v[:, j]).sum(-1), rtol=1e-12)
    assert tree.sizes["pair"] == 6


@pytest.mark.parametrize("kind", ["full", "structured", "mean-field"])
def test_draws_in_many_blocks_belong_together(fits, kind, monkeypatch):
    """A score is the product of u and v of its own draw, wherever the blocks of items and draws end."""
    monkeypatch.setattr(streams, "FLOATS_AT_ONCE", 144)
    fit = fits[kind]
    steps = [block for block, *_ in draw_blocks(fit.posterior, np.arange(12), np.arange(17), 9, 0)]
    assert len({block.start for block in steps}) > 1 and len(steps) > len({block.start for block in steps})
    tree = to_datatree(fit, fit.dataset.user_ids, fit.dataset.item_ids, draws=9, user_log_likelihood=True)
    u, v = (tree["posterior"][name].values[0] for name in "uv")
    np.testing.assert_allclose(tree["posterior"]["score"].values[0], (u @ v.swapaxes(1, 2)).reshape(9, -1), rtol=1e-11)
    np.testing.assert_allclose(
        tree["log_likelihood"]["R_user"].values[0], dense_log_likelihood(fit, u, v).sum(-1), rtol=1e-10
    )


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["mean-field", "full", "structured", "clicks"])
def test_streams_of_draws_have_the_moments_of_the_posterior(fits, kind, monkeypatch, failure_rate):
    """Scores against ``Posterior.score``, and v of items in different blocks, which are independent; two-sided."""
    monkeypatch.setattr(streams, "FLOATS_AT_ONCE", 288)
    fit, n = fits[kind], 4000
    users, items = np.arange(4), np.arange(17)
    tree = to_datatree(fit, fit.dataset.user_ids[users], fit.dataset.item_ids[items], draws=n, prior=False)["posterior"]
    mean, sd = (part.flatten().numpy() for part in fit.posterior.score(users[:, None], items[None]))
    draws, v = tree["score"].values[0], tree["v"].values[0]
    pairs = [(j, k) for j in range(17) for k in range(j)]
    bound = -float(Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2 / (2 * len(mean) + len(pairs)))))
    assert (np.abs(draws.mean(0) - mean) < bound * sd / n**0.5).all()
    kurtosis = ((draws - mean) ** 4).mean(0) / sd**4
    assert (np.abs(draws.var(0) / sd**2 - 1) < bound * ((kurtosis - 1) / n) ** 0.5).all()
    correlations = np.corrcoef(v[..., 0].T)
    assert max(abs(correlations[pair]) for pair in pairs) < bound / n**0.5


@pytest.mark.statistical
def test_the_prior_is_the_models(fits, failure_rate):
    """Variances of u, z, v and u.v under the prior, two-sided, with the spread of the squares themselves."""
    fit, n = fits["structured"], 4000
    tree = to_datatree(fit, draws=n, n_users=3, n_items=3)["prior"]
    expected = {"u": 1.0, "z": 1.0, "v_dagger": 1 / 5.0, "v": 1.2, "score": 3 * 1.2}
    size = {name: tree[name].values[0].reshape(n, -1)[:, :6] for name in expected}
    bound = -float(Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2 / 30)))
    for name, draws in size.items():
        squares = draws**2
        assert (np.abs(squares.mean(0) - expected[name]) < bound * squares.std(0) / n**0.5).all(), name
    np.testing.assert_allclose(tree["v"], tree["v_dagger"] + tree["z"])


# --- ratings and log-likelihood --------------------------------------------------------------------------------------


def data_of(fit: Fit) -> Any:
    likelihood = content_likelihood(fit.options.model.content_likelihood, {})
    return observe(fit.dataset, fit.split, likelihood, fit.options.model, fit.options.data.scaling)[0]


def dense_log_likelihood(fit: Fit, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Log N(R_ij; u_i.v_j, 1 / C_ij), 0 where there is no cell, (n_draws, n_users, n_items), cell by cell."""
    ratings, confidences = (part.numpy().T for part in data_of(fit).columns.dense(fit.options.model.b))
    there = confidences > 0
    c = np.where(there, confidences, 1.0)
    return 0.5 * (np.log(c / (2 * np.pi)) - c * (ratings - u @ v.swapaxes(1, 2)) ** 2) * there


@pytest.mark.parametrize("kind", KINDS)
def test_log_likelihoods_are_those_of_the_pyro_model(fits, kind):
    """Summed over users that of its site R at the same draws; user by user and cell by cell those of dense Normals."""
    fit = fits[kind]
    tree = whole(fit, draws=4)
    u, v, z = (torch.as_tensor(tree["posterior"][name].values[0]) for name in "uvz")
    batch = data_of(fit).batch(torch.arange(fit.dataset.n_items))
    fit.model.eval()
    by_user = tree["log_likelihood"]["R_user"].values[0]
    for draw in range(4):
        values = {
            "u": u[draw],
            "z": z[draw],
            fit.model.item_site: v[draw] - (0 if fit.model.item_site == "v" else z[draw]),
        }
        trace = poutine.trace(poutine.condition(fit.model, values)).get_trace(batch)
        site = trace.nodes["R"]
        assert torch.equal(trace.nodes["u"]["value"], u[draw])
        total = site["fn"].log_prob(site["value"]).sum()
        assert float(total) == pytest.approx(by_user[draw].sum(), rel=1e-12)
    dense = dense_log_likelihood(fit, u.numpy(), v.numpy())
    np.testing.assert_allclose(by_user, dense.sum(-1), rtol=1e-11)
    pairs = ends(tree, "cell")
    rows, columns = fit.dataset.user_rows([u for u, _ in pairs]), fit.dataset.item_rows([i for _, i in pairs])
    np.testing.assert_allclose(tree["log_likelihood"]["R"].values[0], dense[:, rows, columns], rtol=1e-11, atol=1e-12)
    assert (dense[0, rows, columns] != 0).all() and len(rows) > 50


@pytest.mark.parametrize("kind", ["structured", "clicks", "zeros", "popular"])
def test_few_users_have_the_same_log_likelihood_as_all(fits, kind):
    """Of fewer users than factors all scores are taken, of more the Gram matrix."""
    fit = fits[kind]
    every = whole(fit, draws=5)
    u, v = every["posterior"]["u"].values[0], every["posterior"]["v"].values[0]
    rows = UserRows.of(fit, np.array([4, 1]))
    some = (
        rows.log_normalizer()
        - rows.half_square(
            slice(0, len(rows.items)), torch.as_tensor(u[:, [4, 1]]), torch.as_tensor(v[:, rows.items])
        ).numpy()
    )
    np.testing.assert_allclose(some, every["log_likelihood"]["R_user"].values[0][:, [4, 1]], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_what_the_fit_saw_and_held_out_pairs_what_came(fits, kind):
    fit = fits[kind]
    train, test, options = fit.split.train, fit.split.test, fit.options.model
    tree = to_datatree(fit, fit.dataset.user_ids, fit.dataset.item_ids, draws=2)

    def stored(part: Any) -> dict[tuple[str, str], tuple[float, float]]:
        c = (
            np.full(len(part), options.a)
            if part.confidences is None
            else np.nan_to_num(part.confidences, nan=options.a)
        )
        ids = zip(fit.dataset.user_ids[part.users], fit.dataset.item_ids[part.items], strict=True)
        return dict(zip(ids, zip(part.ratings, c, strict=True), strict=True))

    rated = set(fit.dataset.item_ids[train.items])
    counts = np.bincount(train.items, minlength=train.n_items)
    zeros = np.maximum(counts, 1) ** options.b_power
    zeros = dict(zip(fit.dataset.item_ids, options.b * zeros / zeros[counts > 0].mean(), strict=True))
    expected = {
        (user, item): stored(train).get((user, item), (0.0, zeros[item]))
        for user in fit.dataset.user_ids
        for item in fit.dataset.item_ids
        if item in rated or options.unrated == "zeros"
    }
    expected = {pair: cell for pair, cell in expected.items() if cell[1] > 0}

    def found(dim: str, ratings: Any, confidences: Any) -> dict[tuple[str, str], tuple[float, float]]:
        return dict(zip(ends(tree, dim), zip(ratings.values, confidences.values, strict=True), strict=True))

    given, came = tree["constant_data"], tree["predictions_constant_data"]
    cells = found("cell", tree["observed_data"]["R"], given["confidence"])
    assert cells.keys() == expected.keys()
    assert all(cells[pair] == pytest.approx(expected[pair], rel=1e-12) for pair in cells)
    assert given["stored"].values.tolist() == [pair in stored(train) for pair in ends(tree, "cell")]
    assert found("held_out", came["R"], came["confidence"]) == stored(test)
    parts = dict(zip(ends(tree, "pair"), given["pair_part"].values.tolist(), strict=True))
    for pair, part in parts.items():
        assert part == ("test" if pair in stored(test) else "train" if pair in stored(train) else "neither")
    assert tree["constant_data"]["n_ratings_of_user"].values.tolist() == train.user_counts.tolist()
    assert float(tree["constant_data"]["lambda_v"]) == 5.0


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("group", "dim"), [("posterior_predictive", "cell"), ("predictions", "held_out"), ("prior_predictive", "cell")]
)
def test_drawn_ratings_have_their_confidence(fits, group, dim, failure_rate):
    """(R - u.v) sqrt(C) is standard Normal: mean and variance of each cell, two-sided."""
    fit, n = fits["structured"], 3000
    tree = to_datatree(fit, fit.dataset.user_ids[:3], fit.dataset.item_ids[:8], draws=n)
    data, scores = tree[group], tree["prior" if group == "prior_predictive" else "posterior"]
    pairs = {pair: p for p, pair in enumerate(ends(tree, "pair"))}
    at = [pairs[pair] for pair in ends(tree, dim)]
    c = tree["constant_data" if dim == "cell" else "predictions_constant_data"]["confidence"].values
    noise = (data["R"].values[0] - scores["score"].values[0][:, at]) * c**0.5
    bound = -float(Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2 / (2 * noise.shape[1]))))
    assert noise.shape[1] >= 3
    assert (np.abs(noise.mean(0)) < bound / n**0.5).all()
    assert (np.abs((noise**2).mean(0) - 1) < bound * (2 / n) ** 0.5).all()


def test_pairs_that_are_taken_by_themselves_are_of_all_kinds(fits):
    fit = fits["clicks"]
    tree = to_datatree(fit, draws=2, n_users=5)
    users, parts = set(tree["posterior"]["user"].values), tree["constant_data"]["pair_part"].values
    assert len(users) == 5 and {user for user, _ in ends(tree, "pair")} <= users
    counts = {part: (parts == part).sum() for part in ("train", "test", "neither")}
    assert counts["train"] == 5 * 4 and counts["neither"] == 50 and counts["test"] >= 5
    assert len(set(ends(tree, "pair"))) == len(parts)
    pairs = [(fit.dataset.user_ids[3], fit.dataset.item_ids[4]), (fit.dataset.user_ids[0], fit.dataset.item_ids[4])]
    assert ends(to_datatree(fit, pairs=pairs, draws=2), "pair") == pairs


def test_rows_are_spread_over_the_counts():
    counts = np.array([5, 0, 9, 1, 7, 3])
    assert spread_rows(counts, 3).tolist() == [1, 2, 5]
    assert spread_rows(counts, 0).tolist() == spread_rows(counts, 6).tolist() == list(range(6))


def test_the_history_has_every_epoch_and_term(fits):
    fit = fits["structured"]
    history = to_datatree(fit, draws=1)["history"]
    assert history["epoch"].values.tolist() == list(range(1, len(fit.history) + 1))
    assert history["phase"].values.tolist() == [row["phase"] for row in fit.history]
    for name in ("elbo", "ratings", "kl_u", "kl_v", "kl_z", "content"):
        expected = [row.get(name, np.nan) for row in fit.history]
        np.testing.assert_array_equal(history[name].values, expected)


def test_draws_of_mcmc_keep_their_chains(fits):
    draws = pytest.importorskip("inference.draws")
    torch.manual_seed(0)
    u, v, z = (torch.randn(10, rows, 3, dtype=torch.float64) for rows in (12, 17, 17))
    fit = replace(fits["structured"], posterior=draws.Draws.of(u, v, z, torch.arange(10.0), n_chains=2, lambda_v=5.0))
    tree = whole(fit, draws=10)
    assert tree["posterior"].sizes["chain"] == 2 and tree["posterior"].sizes["draw"] == 5
    assert np.array_equal(tree["posterior"]["v"].values, v.view(2, 5, 17, 3))
    assert np.array_equal(tree["posterior"]["u"].values, u.view(2, 5, 12, 3))
    assert tree["sample_stats"]["lp"].values.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    dense = dense_log_likelihood(fit, u.numpy(), v.numpy()).sum(-1)
    np.testing.assert_allclose(tree["log_likelihood"]["R_user"].values.reshape(10, 12), dense, rtol=1e-11)
    thinned = to_datatree(fit, draws=6)
    assert thinned["sample_stats"]["lp"].values.tolist() == [[0, 2, 4], [5, 7, 9]]
    assert np.array_equal(
        thinned["posterior"]["z"].values[1, 1], z[7][fit.dataset.item_rows(thinned["posterior"]["item"].values)]
    )
    with pytest.raises(InputError, match="no multiple of 2 chains"):
        to_datatree(fit, draws=5)
    with pytest.raises(InputError, match="5 are stored"):
        to_datatree(fit, draws=20)


# --- ArviZ -----------------------------------------------------------------------------------------------------------


def test_arvizs_own_functions_take_the_data(fits):
    import matplotlib.pyplot as plt

    tree = to_datatree(fits["structured"], draws=300, n_users=6, n_items=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of single k above their threshold
        table = exported.summary(tree, round_to="none")
        some = exported.loo_subsample(tree, 30, var_name="R")
        every = exported.loo(tree, var_name="R", pointwise=True)
    means = [values.values[0].mean(0).ravel() for values in tree["posterior"].data_vars.values()]
    np.testing.assert_allclose(np.sort(table["mean"]), np.sort(np.concatenate(means)), rtol=1e-9)
    assert f"score[{tree['posterior']['pair'].values[0]}]" in table.index
    assert (
        some.subsample_size == 30 and some.n_data_points == every.n_data_points == tree["observed_data"].sizes["cell"]
    )
    lowest = tree["log_likelihood"]["R"].mean(("chain", "draw")).sum() - abs(every.p) * 5
    assert float(lowest) < every.elpd < float(tree["log_likelihood"]["R"].max(("chain", "draw")).sum())
    forest = exported.plot_forest(
        tree, var_names=["score"], coords={"pair": tree["posterior"]["pair"].values[:8]}, backend="matplotlib"
    )
    uniform = exported.plot_ecdf_pit(pit(tree), group="pit", sample_dims=["held_out"], backend="matplotlib")
    checked = exported.plot_ppc_pit(tree, backend="matplotlib")
    for drawn in (forest, uniform, checked):
        assert drawn.viz["figure"].item().get_axes()
    plt.close("all")


def test_pit_is_the_share_of_draws_below(fits):
    tree = to_datatree(fits["full"], draws=50)
    drawn, came = tree["predictions"]["R"].values[0], tree["predictions_constant_data"]["R"].values
    expected = [(drawn[:, p] <= came[p]).mean() for p in range(len(came))]
    np.testing.assert_allclose(pit(tree)["pit"]["R"].values, expected)
    with pytest.raises(InputError, match="test part"):
        pit(to_datatree(fits["full"], pairs=[_pair_of(fits["full"], "train")], draws=2))


def _pair_of(fit: Fit, part: str) -> tuple[Any, Any]:
    pairs = fit.split.train.select(fit.split.train.observed) if part == "train" else fit.split.test
    return fit.dataset.user_ids[pairs.users[0]], fit.dataset.item_ids[pairs.items[0]]


def test_inference_data_hold_the_same(fits):
    tree = to_datatree(fits["full"], draws=6, seed=2)
    if Version(arviz.__version__) >= Version("1"):
        with pytest.raises(MachineError, match=r"no InferenceData.*to_datatree"):
            to_inference_data(fits["full"], draws=6, seed=2)
        return
    data = to_inference_data(fits["full"], draws=6, seed=2)
    assert sorted(data.groups()) == sorted(tree.children)
    for group in tree.children:
        for name, values in tree[group].data_vars.items():
            assert np.array_equal(data[group][name].values, values.values, equal_nan=values.dtype.kind == "f")


def test_names_that_arviz_has_not_are_told():
    assert {name for name in exported.NAMES if not callable(getattr(exported, name))} == set()
    with pytest.raises(AttributeError, match="no attribute 'plot_nothing'"):
        exported.plot_nothing  # noqa: B018


def test_pareto_k_of_known_tails():
    """Ratios exp(k x^2 / 2) of standard Normal x have a tail of index k; constant ones have none.

    The logarithm in that tail dies slowly, so that the estimate comes out low by up to 0.1 with 4,000 draws; the
    wrong sign gives -1.7.
    """
    x = np.random.default_rng(0).standard_normal((4000, 40))
    for k in (0.3, 0.5, 0.7, 0.9):
        assert k - 0.12 < psis(0.5 * k * x**2).mean() < k + 0.05
    assert psis(np.full((100, 2), 3.0)).tolist() == [-np.inf, -np.inf]


# --- the file --------------------------------------------------------------------------------------------------------


def text(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def test_the_installed_arviz_reads_what_was_written(fits, tmp_path):
    """``from_netcdf`` gives InferenceData below ArviZ 1, an ``xarray.DataTree`` from there on."""
    tree = to_datatree(fits["full"], draws=6)
    read = arviz.from_netcdf(str(save(tree, tmp_path / "posterior.nc")))
    for group in tree.children:
        for name, values in tree[group].data_vars.items():
            same = read[group][name]
            assert same.dims == values.dims and list(same.coords) == list(values.coords)
            assert np.array_equal(same.values, values.values, equal_nan=values.dtype.kind == "f")
    again = xarray.open_datatree(tmp_path / "posterior.nc", engine="h5netcdf")
    assert set(again.children) == set(tree.children) and again["posterior"].equals(tree["posterior"])


def test_plain_h5netcdf_reads_what_was_written(fits, tmp_path):
    fit = fits["structured"]
    tree = to_datatree(fit, draws=7)
    path = save(tree, tmp_path / "posterior.nc")
    assert [file.name for file in tmp_path.iterdir()] == ["posterior.nc"]
    with h5netcdf.File(path, "r") as file:
        assert set(file.groups) == set(tree.children)
        for group, data in tree.children.items():
            for name, values in {**data.data_vars, **data.coords}.items():
                stored = file[group][name]
                assert stored.dimensions == values.dims
                if stored.dtype == object:
                    assert h5py.check_string_dtype(stored._h5ds.dtype) is not None
                    assert text(np.atleast_1d(stored[...])) == text(np.atleast_1d(values.values))
                else:
                    assert stored.dtype.kind in "if"
                    np.testing.assert_array_equal(stored[...], values.values)
        assert text(file["posterior"]["user"][:]) == tree["posterior"]["user"].values.tolist()
        assert file.attrs["posterior"] == "structured" and file.attrs["objective"] == "elbo"


def test_without_a_writer_of_hdf5_one_line_says_what_to_install(fits, tmp_path, monkeypatch):
    tree = to_datatree(fits["structured"], draws=2, prior=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="pip install h5netcdf h5py"):
        save(tree, tmp_path / "posterior.nc")
    assert not list(tmp_path.iterdir())


def test_whole_numbers_stay_ids_and_titles_are_plain_texts(tmp_path):
    rng = np.random.default_rng(0)
    pairs = [(7 * u, -j) for u in range(6) for j in rng.choice(12, 5, replace=False).tolist()]
    texts = {
        "item": [-j for j in range(12)],
        "text": [" ".join(rng.choice(["sun", "sea", "ice"], 5)) for _ in range(12)],
    }
    titles = [f"<b>[red]{j} \N{SNOWMAN}</b>" for j in range(12)]
    chosen = {"user": [u for u, _ in pairs], "item": [j for _, j in pairs]}
    data = from_frames(chosen, texts | {"title": titles}, reading=Reading(html="keep"))
    fit = inference.fit(data, **SMALL | {"train_per_user": 3})
    path = save(to_datatree(fit, [14, 0], [-3], draws=2), tmp_path / "x.nc")
    with h5netcdf.File(path, "r") as file:
        assert file["posterior"]["user"][:].tolist() == [14, 0] and file["posterior"]["user"].dtype == np.int64
        assert text(file["constant_data"]["title"][:]) == [titles[3]]


def test_a_file_is_replaced_only_when_asked_and_never_left_half(fits, tmp_path, monkeypatch):
    tree = to_datatree(fits["full"], draws=2)
    path = tmp_path / "x.nc"
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"exists already; .*--overwrite"):
        save(tree, path)
    monkeypatch.setattr(type(tree), "to_netcdf", lambda *_, **__: path.with_name(".new-x.nc").write_bytes(b"") or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(tree, path, overwrite=True)
    assert path.read_bytes() == b"mine" and [file.name for file in tmp_path.iterdir()] == ["x.nc"]
    monkeypatch.undo()
    save(tree, path, overwrite=True)
    assert path.read_bytes()[:4] == b"\x89HDF"


def test_what_cannot_be_exported_is_told_in_one_line(fits, point):
    fit = fits["full"]
    with pytest.raises(InputError, match=r"is a point.*--mode bayes"):
        to_datatree(point)
    with pytest.raises(InputError, match="no user has the id 'nobody'"):
        to_datatree(fit, ["nobody"])
    with pytest.raises(InputError, match="0 draws are none"):
        to_datatree(fit, draws=0)
    with pytest.raises(
        InputError, match=r"1,000,000 draws of 12 users, 17 items and \d+ pairs take \d+\.\d GiB, above"
    ):
        whole(fit, draws=1_000_000)
    assert whole(fit, draws=3, max_memory=0.001)["posterior"].sizes["draw"] == 3


@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize("by_user", [True, False])
def test_the_memory_that_is_told_is_that_of_the_arrays(fits, prior, by_user):
    fit, every = fits["clicks"], (fits["clicks"].dataset.user_ids, fits["clicks"].dataset.item_ids)
    tree = to_datatree(fit, *every, draws=50, prior=prior, user_log_likelihood=by_user)
    arrays = [v for group in tree.children.values() for v in group.data_vars.values() if "draw" in v.dims]
    size = sum(v.nbytes for v in arrays) / 2**30
    to_datatree(fit, *every, draws=50, prior=prior, user_log_likelihood=by_user, max_memory=size * 1.0001)
    with pytest.raises(InputError, match="above --max-memory"):
        to_datatree(fit, *every, draws=50, prior=prior, user_log_likelihood=by_user, max_memory=size * 0.9999)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    inference.fit(simulated_gaussian(n_users=12, n_items=17, n_words=30, n_factors=3), **SMALL, out=out)
    return out


def test_the_command_writes_what_was_asked(run, tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text("user,item\nuser-0002,item-0009\nuser-0001,item-0003\n")
    (tmp_path / "users.txt").write_text("user-0003\n")
    out = tmp_path / "x.nc"
    asked = ["--user", "user-0001", "--users-from", tmp_path / "users.txt", "--item", "item-0004", "--draws", "11"]
    argv = [run, "--out", out, *asked, "--pairs", tmp_path / "pairs.csv", "--user-log-likelihood", "--no-prior"]
    assert run_command(lambda: main([str(part) for part in argv])) == 0
    printed = capsys.readouterr().out
    assert "posterior" in printed and 'pip install "arviz>=1" netCDF4' in printed and "xarray.open_datatree" in printed
    with h5netcdf.File(out, "r") as file:
        posterior = file["posterior"]
        assert text(posterior["user"][:]) == ["user-0001", "user-0003"] and text(posterior["item"][:]) == ["item-0004"]
        assert text(file["constant_data"]["pair_user"][:]) == ["user-0002", "user-0001"]
        assert posterior["score"].shape == (1, 11, 2) and file["log_likelihood"]["R_user"].shape == (1, 11, 2)
        assert "prior" not in file.groups


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--out", "x.csv"], "--out is 'x.csv', but it must end in .nc"),
        (["--out", "nowhere/x.nc"], "no such folder"),
        (["--out", "x.nc", "--draws", "0"], "--draws is 0, but it must be at least 1"),
        (["--out", "x.nc", "--max-memory", "0"], "--max-memory is 0"),
        (["--out", "x.nc", "--user", "nobody"], "no user has the id 'nobody'"),
        (["--out", "x.nc", "--pairs", "none.csv"], "none.csv: no such file"),
        (["--out", "x.nc", "--pairs", "wrong.csv"], "has no column item"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(run, argv, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.csv").write_text("user\nuser-0001\n")
    assert run_command(lambda: main([str(run), *argv])) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(tmp_path.glob("*.nc"))


@pytest.mark.parametrize("module", ["analysis.posterior", "analysis.diagnostics"])
def test_help_answers_without_torch_or_arviz(module):
    code = (
        f"import sys, {module} as m\ntry: m.main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'arviz', 'arviz_base', 'xarray', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "--out" in done.stdout and done.stderr == ""


def test_only_the_room_of_draws_knows_arviz():
    from benchmarks import house

    files = house.files(Path(__file__).parents[2])
    knowing = {file.name for file in files for one in house.imports(file) if one.module.startswith("arviz")}
    assert knowing == {"analysis/draws/arviz_data.py", "analysis/draws/psis.py"}


@pytest.mark.realdata
@pytest.mark.slow
def test_a_thousand_draws_of_citeulike_t_stay_below_two_gib(data_folder, tmp_path):
    """K = 50, full covariances given the content, the log-likelihoods by user too, which take draws of all items."""
    fit = (
        "import inference, sys\nfrom pyro_cvae.data.registry import load_dataset\n"
        "inference.fit(load_dataset(sys.argv[1]), method='coordinate', guide='structured', factors=50, hidden=(50,),"
        " pretrain_epochs=1, epochs=0, sweeps=1, train_per_user=10, threads=2, out=sys.argv[2])"
    )
    export = (
        "import resource, sys\nfrom analysis.posterior import main\n"
        "main([sys.argv[1], '--out', sys.argv[2], '--user-log-likelihood'])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"
    )
    run, out = tmp_path / "run", tmp_path / "x.nc"
    subprocess.run([sys.executable, "-c", fit, data_folder / "citeulike-t", run], check=True, capture_output=True)
    done = subprocess.run([sys.executable, "-c", export, run, out], check=True, capture_output=True, text=True)
    with h5netcdf.File(out, "r") as file:
        assert file["posterior"]["v"].shape == (1, 1000, 20, 50)
        assert np.isfinite(file["log_likelihood"]["R_user"][...]).all()
    assert float(done.stdout.split()[-1]) < 2.0
