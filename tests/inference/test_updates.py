"""Users folded in and items added, against dense formulas and against fits that had them from the beginning."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import inference
from inference.algorithms.cells import Cells
from inference.algorithms.half_steps import half_step
from inference.algorithms.sides import background_of
from inference.draws import Draws
from inference.fitting import load
from inference.recommending import add_items, fold_in, recommend
from inference.recommending.updated import UpdatedFit, folded_in, zero_weights
from models.gaussians import Gaussians
from models.observations import RatingColumns
from pyro_cvae.data.content import Content
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.frames import read_pairs
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.simulated import simulated, simulated_stars
from pyro_cvae.data.splits import Split, held_out_cells
from pyro_cvae.errors import InputError

N_USERS, N_ITEMS, N_FACTORS = 40, 30, 3
COMMON = {"factors": N_FACTORS, "hidden": (6,), "dtype": "float64", "lambda_u": 2.0, "lambda_v": 3.0}
COMMON |= {"a": 4.0, "b": 0.3}
SHORT = {"pretrain_epochs": 2, "epochs": 2}
KINDS = {
    "point": {"method": "coordinate", "mode": "map"},
    "svi point": {"mode": "map"},
    "mean-field": {},
    "non-centred": {"parametrization": "non-centred"},
    "svi structured": {"guide": "structured"},
    "full": {"method": "coordinate"},
    "diagonal": {"method": "coordinate", "diagonal": True},
    "structured": {"method": "coordinate", "guide": "structured"},
    "learned": {"method": "coordinate", "guide": "structured", "learn_precisions": True},
    "zeros": {"method": "coordinate", "unrated": "zeros"},
    "popular point": {"method": "coordinate", "mode": "map", "b_power": 0.7},
    "popular": {"method": "coordinate", "b_power": 0.7},
    "popular svi": {"b_power": 0.7, "guide": "structured"},
}
UNSURE = [kind for kind in KINDS if "point" not in kind]
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def catalogue():
    """Clicks on a catalogue whose last four items are cold."""
    data = simulated(n_users=N_USERS, n_items=N_ITEMS, n_words=60, n_factors=N_FACTORS)
    pairs = data.interactions.select(data.interactions.items < N_ITEMS - 4)
    return replace(data, interactions=pairs)


def split_of(dataset):
    """All pairs are training pairs."""
    nothing = dataset.interactions.select(np.zeros(len(dataset.interactions), bool))
    return Split(dataset.interactions, nothing, None, None, {})


@pytest.fixture(scope="module")
def fits():
    dataset = catalogue()
    return {kind: inference.fit(dataset, split_of(dataset), **COMMON | SHORT | k) for kind, k in KINDS.items()}


HISTORY = {"ann": [0, 3, 7, N_ITEMS - 1], "bob": [5], "cyd": [N_ITEMS - 1, N_ITEMS - 2, 9, 11, 12, 13]}
"""Lists with cold items among them, and in two lists the same one."""


def pairs_of(history):
    users = [user for user, rows in history.items() for _ in rows]
    return users, [f"item-{row + 1:04d}" for rows in history.values() for row in rows]


def by_formula(fit, items, ratings=None, confidences=None):
    """Precision and shift of one user, a sum over items one by one, each with its own second moment."""
    p, model = fit.posterior, fit.model
    seen = set(fit.split.train.items.tolist()) if fit.options.model.unrated == "masked" else set(range(N_ITEMS))
    precision, shift = model.lambda_u * torch.eye(N_FACTORS).double(), torch.zeros(N_FACTORS).double()
    counts = np.bincount(fit.split.train.items, minlength=N_ITEMS)
    weights = np.maximum(counts, 1) ** fit.options.model.b_power
    weights = weights / weights[counts > 0].mean()
    for j in range(N_ITEMS):
        c, r = (model.ratings.b * weights[j] if j in seen else 0.0), 0.0
        if j in items:
            c = model.ratings.a if confidences is None else confidences[items.index(j)]
            r = 1.0 if ratings is None else ratings[items.index(j)]
        second = torch.outer(p.v_loc[j], p.v_loc[j])
        if not p.is_point:
            second = second + p.covariance("v", j)
        precision, shift = precision + c * second, shift + c * r * p.v_loc[j]
    return precision, shift


def check_user(fit, updated, user, *asked):
    row = updated.dataset.user_rows([user])[0]
    precision, shift = by_formula(fit, *asked)
    torch.testing.assert_close(updated.posterior.u_loc[row], torch.linalg.solve(precision, shift), **CLOSE)
    if fit.posterior.u.covariance is not None:
        torch.testing.assert_close(updated.posterior.covariance("u", row), torch.linalg.inv(precision), **CLOSE)
    elif not fit.posterior.is_point:
        best = torch.diag(1 / precision.diagonal())  # of all products of Normals
        torch.testing.assert_close(updated.posterior.covariance("u", row), best, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folded_in_user_is_the_closed_form(fits, kind):
    """Every kind, three users at once with a cold item in common, each as if alone; the others stay as they were."""
    fit = fits[kind]
    updated = fold_in(fit, *pairs_of(HISTORY))
    assert updated.dataset.user_ids.tolist() == [*fit.dataset.user_ids, *HISTORY]
    assert folded_in(updated).tolist() == [False] * N_USERS + [True] * 3 and not folded_in(fit).any()
    for user, items in HISTORY.items():
        check_user(fit, updated, user, items)
    before = fit.posterior
    assert torch.equal(updated.posterior.u_loc[:N_USERS], before.u_loc) and updated.posterior.v_loc is before.v_loc
    assert len(before.u_loc) == N_USERS and fit.split.train.n_users == N_USERS
    if not before.is_point:
        for name in ("u", "v"):
            rows = range(len(before.mean(name)))
            assert torch.equal(updated.posterior.covariance(name, rows), before.covariance(name, rows))


@pytest.mark.parametrize("kind", KINDS)
def test_a_folded_in_user_scores_like_the_refitted_one_with_items_held(fits, kind):
    """The half-step of all users over the data with the new one among them, q(V) held: the same row, and scores."""
    fit = fits[kind]
    data, (users, items) = fit.split.train, pairs_of({"ann": HISTORY["ann"]})
    rows = np.concatenate([data.items, HISTORY["ann"]])
    extended = Interactions.from_arrays(
        np.concatenate([data.users, [N_USERS] * 4]), rows, n_users=N_USERS + 1, n_items=N_ITEMS
    )
    options, p = fit.options.model, fit.posterior
    columns = RatingColumns.from_interactions(extended, options.a, options.unrated, torch.float64)
    covariance = None if p.is_point else p.covariance("v", range(N_ITEMS))
    other = Gaussians(p.v_loc, covariance=covariance, block=None if p.is_point else torch.arange(N_ITEMS))
    family = "point" if p.is_point else "full" if p.u.covariance is not None else "diagonal"
    site = fit.model.ratings.site(replace(columns, zero_weights=zero_weights(fit)))
    cells, background = Cells.of_users(columns, site), background_of(site, of_users=True)
    refitted = half_step(cells, other, columns.observed, background, fit.model.lambda_u, family=family).rows
    updated = fold_in(fit, users, items).posterior
    torch.testing.assert_close(updated.u_loc[-1], refitted.loc[-1], **CLOSE)
    torch.testing.assert_close(updated.score_block([N_USERS])[0], refitted.loc[-1] @ p.v_loc.mT, rtol=1e-6, atol=1e-12)
    if not p.is_point:
        if family == "full":
            of_u = refitted.covariance[refitted.block[-1]]
        else:
            of_u = torch.diag(refitted.variance[-1])
        u, v, s = refitted.loc[-1], p.v_loc, covariance
        variance = (s @ u) @ u + ((v @ of_u) * v).sum(-1) + (s * of_u).sum((-1, -2))
        sd = updated.score(N_USERS, torch.arange(N_ITEMS))[1]
        torch.testing.assert_close(sd, variance.sqrt(), rtol=1e-6, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["point", "full", "structured"])
def test_a_converged_fit_keeps_a_user_who_is_folded_in_again(method):
    """After many sweeps q(U) is the best given q(V): a user's own training list leaves the posterior where it is."""
    dataset = catalogue()
    fit = inference.fit(dataset, split_of(dataset), **COMMON | SHORT | KINDS[method] | {"epochs": 0, "sweeps": 800})
    mine = dataset.interactions.items[dataset.interactions.users == 4]
    user, items = dataset.user_ids[4], dataset.item_ids[mine]
    updated = fold_in(fit, [user] * len(items), items)
    assert updated.dataset.n_users == N_USERS
    assert folded_in(updated).tolist() == [row == 4 for row in range(N_USERS)]
    torch.testing.assert_close(updated.posterior.u_loc, fit.posterior.u_loc, rtol=1e-6, atol=1e-9)
    if method != "point":
        every = range(N_USERS)
        found, before = (part.posterior.covariance("u", every) for part in (updated, fit))
        torch.testing.assert_close(found, before, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(updated.posterior.score_block([4]), fit.posterior.score_block([4]), rtol=1e-6, atol=1e-9)


def test_ratings_and_confidences(fits):
    """Values of any sign, a weight of 1.5, a NaN for the usual weight, a cell that is missing, observed and cold."""
    fit = fits["structured"]
    items, ratings, confidences = [1, 2, 5, N_ITEMS - 1], [0.5, -2.0, 7.0, 3.0], [1.5, float("nan"), 0.0, 0.0]
    ids = [f"item-{row + 1:04d}" for row in items]
    updated = fold_in(fit, ["eve"] * 4, ids, ratings=ratings, confidences=confidences)
    check_user(fit, updated, "eve", items, ratings, [6.0, 4.0, 0.0, 0.0])  # a is 4
    seen = recommend(updated, ["eve"], N_ITEMS)["item"].tolist()
    assert "item-0001" in seen and ids[0] not in seen and ids[2] in seen  # a missing cell is no choice
    assert ids[1] in seen  # nor is a negative rating
    negative = pytest.raises(InputError, match="negative")
    with negative:
        fold_in(fit, ["eve"], ids[:1], confidences=[-1.0])


def test_a_user_of_the_fit_is_replaced(fits, caplog):
    """The new list is all that counts; the old training and test pairs are gone from the extended split."""
    fit = fits["full"]
    train = fit.split.train
    test = Interactions.from_arrays([4], [29], n_users=N_USERS, n_items=N_ITEMS)
    fit = replace_split(fit, Split(train, test, None, np.arange(N_USERS) < 3, {}))
    updated = fold_in(fit, ["user-0005", "new"], ["item-0030", "item-0030"])
    assert updated.dataset.user_ids.tolist() == [*fit.dataset.user_ids, "new"]
    assert np.flatnonzero(folded_in(updated)).tolist() == [4, N_USERS]
    assert torch.equal(updated.posterior.u_loc[4], updated.posterior.u_loc[N_USERS])
    check_user(fit, updated, "user-0005", [29])
    for part in (updated.split.train, updated.dataset.interactions):
        assert part.items[part.users == 4].tolist() == [29] == part.items[part.users == N_USERS].tolist()
        others = part.users[(part.users != 4) & (part.users < N_USERS)]
        assert np.array_equal(others, train.users[train.users != 4])
    assert len(updated.split.test) == 0 and len(updated.split.tuning_users) == N_USERS + 1
    again = fold_in(updated, ["new"], ["item-0001"])
    check_user(fit, again, "new", [0])
    assert np.flatnonzero(folded_in(again)).tolist() == [4, N_USERS]
    assert again.fitted is fit


def replace_split(fit, split):
    return type(fit)(**vars(fit) | {"split": split})


def test_an_unknown_item_in_a_list(fits, caplog):
    fit = fits["structured"]
    with pytest.raises(InputError, match="no item has the id 'item-0031'"):
        fold_in(fit, ["ann"], ["item-0031"])
    with caplog.at_level(logging.WARNING, "pyro_cvae"):
        updated = fold_in(fit, ["ann", "ann", "bob"], ["item-0031", "item-0001", "item-0099"], unknown="drop")
    assert "2 pairs of unknown items left out" in caplog.text
    check_user(fit, updated, "ann", [0])
    check_user(fit, updated, "bob", [])  # who chose nothing
    for kind in KINDS:
        nothing = fold_in(fits[kind], ["bob"], ["item-0099"], unknown="drop")
        check_user(fits[kind], nothing, "bob", [])


def test_what_cannot_be_folded_in(fits, monkeypatch):
    fit = fits["full"]
    with pytest.raises(InputError, match="nobody"):
        fold_in(fit, [], [])
    with pytest.raises(InputError, match="2 users and 1 item are no pairs"):
        fold_in(fit, ["a", "b"], ["item-0001"])
    with pytest.raises(InputError, match="user id 7 is not text"):
        fold_in(fit, [7], ["item-0001"])
    monkeypatch.setattr(type(fit.model.ratings), "conjugate", False)
    with pytest.raises(InputError, match="no closed form"):
        fold_in(fit, ["a"], ["item-0001"])


# --- items -----------------------------------------------------------------------------------------------------------


def with_cold_items(dataset, counts):
    """The data set with items behind its own that nobody has chosen, as for a fit from the beginning."""
    n_items = dataset.n_items + len(counts.toarray())
    ids = np.array([*dataset.item_ids, *(f"late-{row}" for row in range(n_items - dataset.n_items))], object)
    content = Content(sp.vstack([dataset.content.counts, counts]), dataset.content.vocabulary)
    pairs = replace(dataset.interactions, n_items=n_items)
    return Dataset(dataset.name, pairs, content, dataset.user_ids, ids, None, None)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "zeros"])
def test_an_added_item_equals_its_refit_with_the_networks_held(fits, kind):
    """Under --unrated masked: the fit's own algorithm, its networks as they are, over data with the items in them.

    v is N(mu, sigma^2 + 1/lambda_v), as the structured posterior of the refit has it; the mean field's own leaves out
    sigma^2, and only that.
    """
    from inference.fitting import ALGORITHMS
    from inference.options import Options
    from models.build import content_likelihood, make_model
    from models.observations import Observations, SparseRows

    fit = fits[kind]
    counts = simulated(seed=5, n_users=12, n_items=5, n_words=60, n_factors=N_FACTORS).content.counts
    updated = add_items(fit, [f"late-{row}" for row in range(5)], counts=counts)
    p, rows = updated.posterior, torch.arange(N_ITEMS, N_ITEMS + 5)
    mu, sigma = fit.model.encoder(SparseRows.from_csr(fit.scalings["inputs"].transform(counts), torch.float64))
    variance = sigma.square() + 1 / fit.model.lambda_v
    torch.testing.assert_close(p.v_loc[rows], mu.detach(), **CLOSE)
    expected_sd = fit.encode(counts)[1]
    torch.testing.assert_close(expected_sd, variance.sqrt(), **CLOSE)
    if not p.is_point:
        torch.testing.assert_close(p.covariance("v", rows), torch.diag_embed(variance).detach(), **CLOSE)
        assert torch.equal(p.covariance("v", range(N_ITEMS)), fit.posterior.covariance("v", range(N_ITEMS)))
        for item in rows.tolist():  # and as a part of the whole
            u, s_u = p.u_loc[3], p.covariance("u", 3)
            exact = (u.square() * variance[item - N_ITEMS]).sum() + (s_u.diagonal() * variance[item - N_ITEMS]).sum()
            exact = exact + p.v_loc[item] @ s_u @ p.v_loc[item]
            torch.testing.assert_close(p.score(3, item)[1], exact.sqrt().detach(), **CLOSE)

    dataset = with_cold_items(fit.dataset, counts)
    o = fit.options
    likelihood = content_likelihood(o.model.content_likelihood, o.model.content_likelihood_args)
    content, inputs = (
        SparseRows.from_csr(fit.scalings[name].transform(dataset.content.counts), torch.float64)
        for name in ("content", "inputs")
    )
    columns = RatingColumns.from_interactions(dataset.interactions, o.model.a, o.model.unrated, torch.float64)

    def make():
        model = make_model(N_USERS, N_ITEMS + 5, 60, likelihood, o.model).double()
        model.lambda_u, model.lambda_v = fit.model.lambda_u, fit.model.lambda_v
        return model

    held = Options.of(o.method_name, **o.to_dict() | {"pretrain_epochs": 0, "epochs": 0} | no_learning(o))
    algorithm = ALGORITHMS[o.method_name](make, Observations(content, inputs, columns), held)
    state = algorithm.init()
    state.model.load_state_dict(fit.model.state_dict())
    if o.method_name == "coordinate":
        algorithm._first_sweeps(state)
        for _ in range(3):
            algorithm.sweep(state)
    refit = algorithm.posterior(state)
    torch.testing.assert_close(refit.v_loc[rows], p.v_loc[rows], **CLOSE)
    torch.testing.assert_close(refit.z_loc[rows], p.z_loc[rows], **CLOSE)
    torch.testing.assert_close(refit.z_scale[rows], p.z_scale[rows], **CLOSE)
    if p.is_point:
        return
    left_out = torch.zeros_like(variance) if p.kind == "structured" or kind == "non-centred" else sigma.square()
    refitted = refit.covariance("v", rows) + torch.diag_embed(left_out)
    torch.testing.assert_close(refitted.detach(), p.covariance("v", rows), **CLOSE)


def no_learning(options):
    return {"learn_precisions": False} if options.method_name == "coordinate" else {}


def test_texts_go_through_the_runs_vocabulary(fits, caplog):
    """Words are counted as in the fit, titles too; an item without a known word is the prior's."""
    fit = fits["structured"]
    words = fit.dataset.content.vocabulary
    texts = [f"{words[3]} {words[3].upper()}, {words[8]}! unheardof", "unheardof", ""]
    with caplog.at_level(logging.WARNING, "pyro_cvae"):
        updated = add_items(fit, ["a", "b", "c"], texts, titles=["", f"The {words[9]}", ""])
    assert "1 of 3 new items has no word of the vocabulary" in caplog.text
    counts = np.zeros((3, 60))
    counts[0, 3], counts[0, 8], counts[1, 9] = 2, 1, 1
    assert np.array_equal(updated.dataset.content.counts[-3:].toarray(), counts)
    torch.testing.assert_close(updated.posterior.v_loc[-3:], fit.encode(sp.csr_matrix(counts))[0], **CLOSE)
    loc, scale = fit.encode_content(sp.csr_matrix(counts))
    assert not loc[2].any() and bool((scale[2] == 1).all()) and bool((loc[:2] != 0).all())
    assert updated.dataset.titles[-2] == f"The {words[9]}"
    assert updated.dataset.item_ids.tolist() == [*fit.dataset.item_ids, "a", "b", "c"]
    table = recommend(updated, ["user-0001"], N_ITEMS + 3)
    assert set(table.loc[table["group"] == "new", "item"]) == {"a", "b", "c"}
    old = recommend(fit, ["user-0001"], N_ITEMS).set_index("item")
    new = table.set_index("item").loc[old.index]
    assert (new["group"] == old["group"]).all()
    np.testing.assert_allclose(new[["score", "sd"]], old[["score", "sd"]], rtol=1e-12)


def test_items_that_cannot_be_added(fits):
    fit = fits["full"]
    counts = fit.dataset.content.counts[:1]
    for ids, more, problem in (
        (["item-0001"], {"counts": counts}, "item 'item-0001' is there more than once"),
        ([5], {"counts": counts}, "item id 5 is not text"),
        (["a"], {}, "new items need texts or word counts, which the fit is of"),
        (["a"], {"texts": ["x"], "counts": counts}, "either texts or word counts"),
        (["a"], {"counts": counts[:, :9]}, "the new text are words of 9, the fit's words of 60"),
        (["a", "b"], {"counts": counts}, "2 new items have 1 row of text"),
    ):
        with pytest.raises(InputError, match=problem):
            add_items(fit, ids, **more)
    with pytest.raises(InputError, match="item 'a' is there more than once"):
        add_items(fit, ["b", "a", "a"], ["", "", ""])
    content = replace(fit.dataset.content, vocabulary=None)
    blind = type(fit)(**vars(fit) | {"dataset": replace(fit.dataset, content=content)})
    with pytest.raises(InputError, match="no vocabulary"):
        add_items(blind, ["a"], ["text"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_may_have_chosen_an_added_item(fits, kind):
    """Users before and after; an added item has a cell for who lists it and no column for anybody else."""
    fit = fits[kind]
    counts = fit.dataset.content.counts[:2]
    first = fold_in(fit, ["ann"], ["item-0004"])
    added = add_items(first, ["x", "y"], counts=counts)
    updated = fold_in(added, ["bob", "bob"], ["y", "item-0009"])
    assert isinstance(updated, UpdatedFit) and updated.fitted is fit
    assert np.flatnonzero(folded_in(updated)).tolist() == [N_USERS, N_USERS + 1]
    check_user(fit, updated, "ann", [3])
    p = updated.posterior
    precision, shift = by_formula(fit, [8])
    second = torch.outer(p.v_loc[-1], p.v_loc[-1])
    second = second if p.is_point else second + p.covariance("v", N_ITEMS + 1)
    precision, shift = precision + 4.0 * second, shift + 4.0 * p.v_loc[-1]
    torch.testing.assert_close(p.u_loc[-1], torch.linalg.solve(precision, shift), **CLOSE)
    listed = recommend(updated, ["bob"], N_ITEMS + 2)["item"]
    assert "x" in set(listed) and not {"y", "item-0009"} & set(listed)


def test_a_run_from_a_folder_does_as_the_fit_in_memory(tmp_path):
    """Learned precisions are in the folder's metrics, not in its options."""
    dataset = catalogue()
    fit = inference.fit(dataset, split_of(dataset), out=tmp_path / "run", **COMMON | SHORT | KINDS["learned"])
    assert fit.model.lambda_u != COMMON["lambda_u"]
    again = load(tmp_path / "run")
    for update in (lambda f: fold_in(f, *pairs_of(HISTORY)), lambda f: add_items(f, ["a"], ["word"])):
        mine, theirs = update(fit).posterior, update(again).posterior
        for name, tensor in mine.tensors().items():
            torch.testing.assert_close(theirs.tensors()[name], tensor, **CLOSE)
    check_user(again, fold_in(again, *pairs_of(HISTORY)), "ann", HISTORY["ann"])


# --- what is drawn ---------------------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("kind", UNSURE)
def test_the_variance_of_scores_in_closed_form_is_that_of_draws(fits, kind, failure_rate):
    """Two-sided, of scores of two old and two folded-in users on old, cold and added items; mean and variance."""
    from scipy.stats import norm

    updated = add_items(fold_in(fits[kind], *pairs_of(HISTORY)), ["x"], counts=fits[kind].dataset.content.counts[:1])
    users, items = torch.tensor([[0], [7], [N_USERS], [N_USERS + 2]]), torch.tensor([0, 9, N_ITEMS - 1, N_ITEMS])
    n = 20_000
    draws = updated.posterior.score_draws(users, items, n, seed=3).numpy()
    mean, sd = (part.numpy() for part in updated.posterior.score(users, items))
    bound = norm.isf(failure_rate / (2 * 2 * mean.size * len(UNSURE)))
    for found, truth in ((draws, mean), ((draws - mean) ** 2, sd**2)):
        assert (abs(found.mean(0) - truth) < bound * found.std(0, ddof=1) / n**0.5).all()


def test_stored_draws_are_refused(fits):
    fit = fits["full"]
    u, v, z = (torch.randn(4, *rows.shape) for rows in (fit.posterior.u_loc, fit.posterior.v_loc, fit.posterior.z_loc))
    drawn = replace(fit, posterior=Draws.of(u, v, z))
    for update in (lambda: fold_in(drawn, ["ann"], [0]), lambda: add_items(drawn, ["new"], ["some words"])):
        with pytest.raises(InputError, match=r"stored draws of inference\.mcmc .*inference\.coordinate"):
            update()


def test_a_user_of_a_fit_of_stars_is_folded_in_by_ratings(tmp_path):
    """As the fit's own half-step: a user of the fit, folded in from the same ratings, is the same again."""
    dataset = simulated_stars(n_users=40, n_items=50, n_words=20, exposure=0.3)
    options = {"factors": 2, "hidden": (5,), "pretrain_epochs": 2, "epochs": 0, "sweeps": 300, "dtype": "float64"}
    split = held_out_cells(dataset, 0.1, 0)
    fit = inference.fit(dataset, split, method="coordinate", rating_likelihood="normal", threads=1, **options)
    train = split.train.select(split.train.observed)
    own = train.users == 3
    user, items = dataset.user_ids[3], dataset.item_ids[train.items[own]]
    again = fold_in(fit, [user] * own.sum(), items, ratings=train.ratings[own])
    torch.testing.assert_close(again.posterior.u_loc[3], fit.posterior.u_loc[3], rtol=1e-6, atol=1e-8)
    rows = torch.tensor([3])
    for ours, theirs in zip(again.posterior.score(rows, rows), fit.posterior.score(rows, rows), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
    table = tmp_path / "history.csv"
    lines = [f"{user},{item},{rating}" for item, rating in zip(items, train.ratings[own], strict=True)]
    table.write_text("\n".join(["user,item,rating", *lines]), encoding="utf-8")
    assert read_pairs(table, ratings="stars")[3].tolist() == train.ratings[own].tolist()
    assert read_pairs(table)[3] is None


@pytest.mark.slow
@pytest.mark.parametrize("family", [{"mode": "map"}, {"diagonal": True}, {}, {"guide": "structured"}])
def test_a_user_of_a_fit_by_the_bound_of_clicks_is_folded_in(family):
    """With the user's own xi found anew: a user of a converged fit, folded in from the same clicks, is the same."""
    dataset = simulated(n_users=40, n_items=50, n_words=20, n_factors=2)
    split = held_out_cells(dataset, 0.01, 0)
    options = {"factors": 2, "hidden": (5,), "pretrain_epochs": 2, "epochs": 0, "sweeps": 400, "dtype": "float64"}
    options |= {"rating_likelihood": "bernoulli-bound", "threads": 1} | family
    fit = inference.fit(dataset, split, method="coordinate", **options)
    own = split.train.users == 3
    user, items = dataset.user_ids[3], dataset.item_ids[split.train.items[own]]
    confidences = np.where(split.train.observed[own], 1.0, 0.0)
    again = fold_in(fit, [user] * own.sum(), items, ratings=split.train.ratings[own], confidences=confidences)
    torch.testing.assert_close(again.posterior.u_loc[3], fit.posterior.u_loc[3], rtol=1e-4, atol=1e-5)
    if not fit.posterior.is_point:
        rows = torch.tensor([3])
        sds = (found.posterior.covariance("u", rows) for found in (again, fit))
        torch.testing.assert_close(*sds, rtol=1e-3, atol=1e-6)
