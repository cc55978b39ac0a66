"""Settings that a fit finds for itself, against brute force; and c, by how much contents count of unrated items."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch.distributions import Normal
from torch.nn.functional import pad

import analysis.compare
import analysis.diagnostics
import analysis.posterior
import analysis.report
import inference
import inference.evaluate
from analysis.draws.streams import prior_blocks
from analysis.page.facts import fit_facts
from inference.algorithms import choosing, networks
from inference.algorithms.choosing import Settings, _Trials, hidden_items, hidden_pairs, latest_pairs
from inference.algorithms.elbo import NamedELBO, constant, total
from inference.algorithms.guides import make_guide
from inference.algorithms.kernels import kernel
from inference.algorithms.precisions import short_fit
from inference.algorithms.worth import Worth, count_above, worth_of
from inference.fitting import Pretrained, fit_with
from inference.options import Options
from inference.recommending.items import add_items
from inference.recommending.lists import recommend
from models.base import FactorModel
from models.build import make_model
from models.contents.multinomial import Multinomial
from models.observations import RatingColumns
from models.ratings import GaussianSite
from models.ratings.confidence_normal import ConfidenceNormal
from models.story import check_story
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import per_user
from pyro_cvae.errors import InputError
from pyro_cvae.listed import Listed
from pyro_cvae.runs import open_run
from pyro_cvae.runs.disk import files_in
from pyro_cvae.runs.manifest import write_manifest
from pyro_cvae.runs.tensors import read_tensors, write_tensors
from tests.models.toy import N_FACTORS, N_ITEMS, N_USERS, toy_model, toy_observations

SMALL = {"factors": 4, "hidden": (8,), "pretrain_epochs": 4, "epochs": 1, "sweeps": 3, "threads": 1}


@pytest.fixture(scope="module")
def catalogue():
    dataset = simulated(n_users=120, n_items=240, n_words=60, seed=3)
    split = per_user(dataset, 6, 0)
    assert 20 < (split.train.item_counts == 0).sum() < 120
    return dataset, split


def columns_of(split):
    return RatingColumns.from_interactions(split.train, 100.0, dtype=torch.float64)


def trials_of(split, contents=None, **more):
    options = Options.of("coordinate", mode="map", **{"tune": 5} | SMALL | more)
    columns = columns_of(split)
    torch.manual_seed(0)
    z = torch.randn(len(columns), 4, dtype=torch.float64)
    model = make_model(columns.n_users, len(columns), 10, Multinomial(), options.model).double()
    return _Trials(model, columns, {4: z} if contents is None else contents, options)


def test_a_fifth_of_each_users_pairs_is_hidden_and_one_stays(catalogue):
    columns = columns_of(catalogue[1])
    hidden = hidden_pairs(columns, np.random.default_rng(0))
    users, counts = columns.users.numpy(), np.bincount(columns.users, minlength=columns.n_users)
    left = np.bincount(users[~hidden], minlength=columns.n_users)
    assert (left[counts > 0] >= 1).all() and (np.bincount(users[hidden], minlength=len(counts)) <= 2).all()
    assert hidden.mean() == pytest.approx(0.2, abs=0.03)
    whole = hidden_items(columns, hidden, np.random.default_rng(1))
    gone = np.bincount(columns.items[~torch.as_tensor(whole)], minlength=len(columns)) == 0
    before = np.bincount(columns.items, minlength=len(columns)) > 0
    assert (whole >= hidden).all() and 0.02 < (gone & before).sum() / before.sum() < 0.6


@pytest.mark.parametrize("biases", ["off", "on"])
def test_worth_is_that_of_dense_rankings(catalogue, biases):
    """Every hidden pair of every user at every c: ranks counted one by one over a dense matrix of scores."""
    trials = trials_of(catalogue[1], biases=biases)
    rng = np.random.default_rng(0)
    held_out = trials.hiding(hidden_items(trials.columns, hidden_pairs(trials.columns, rng), rng), rng)
    model = trials.model
    with torch.no_grad():
        users, items, observed = short_fit(model, held_out.known, trials.contents[4], "point", 2)
    scales = (0.5, 1.0, 3.0)
    found = worth_of(model, users, items, ~observed, held_out, scales)
    assert bool((~observed).any()) and len(found) > 60
    long, short = min(500, len(items) // 2), max(1, min(20, min(500, len(items) // 2) // 10))
    wanted = torch.zeros_like(found)
    for column, c in enumerate(scales):
        rows = items.clone()
        rows[~observed, :4] *= c
        scores = model.of_users(users) @ model.of_items(rows).mT
        for place, user in enumerate(held_out.looked.tolist()):
            open_to = torch.ones(len(items), dtype=torch.bool)
            open_to[held_out.seen_items[held_out.seen_users == place]] = False
            pairs = held_out.items[held_out.users == place].tolist()
            ranks = [1 + int((scores[user][open_to] > scores[user, item] + 1e-12).sum()) for item in pairs]
            worth = [min(max(np.log(long / rank) / np.log(long / short), 0.0), 1.0) for rank in ranks]
            wanted[place, column] = np.mean(worth)
    assert torch.allclose(found, wanted, atol=1e-12)


def timed(split, times):
    """The split whose training pairs have these times, (n_train,)."""
    return replace(split, train=replace(split.train, times=times))


def test_the_latest_fifth_is_hidden_and_moments_stay_together(catalogue):
    split = catalogue[1]
    times = np.random.default_rng(0).integers(20, size=len(split.train)).astype(float)
    times[:30] = np.nan
    columns = columns_of(timed(split, times))
    order = np.lexsort((split.train.users, split.train.items))
    assert torch.equal(columns.times.isnan(), torch.as_tensor(np.isnan(times[order])))
    hidden = latest_pairs(columns)
    known = ~np.isnan(times[order])
    assert not hidden[~known].any() and 0.2 <= hidden[known].mean() < 0.26
    assert times[order][hidden].min() > times[order][known & ~hidden].max()
    assert not latest_pairs(columns_of(timed(split, np.zeros(len(split.train))))).any(), (
        "one moment is the earliest too"
    )
    assert not latest_pairs(columns_of(timed(split, np.full(len(split.train), np.nan)))).any()


def test_the_last_fifth_of_each_user_is_hidden_and_one_stays(catalogue):
    split = catalogue[1]
    times = np.random.default_rng(0).random(len(split.train))
    columns = columns_of(timed(split, times))
    hidden = hidden_pairs(columns, np.random.default_rng(0), last=True)
    users, when = columns.users.numpy(), columns.times.numpy()
    for user in np.unique(users):
        own = users == user
        assert when[own & ~hidden].max() < when[own & hidden].min(initial=np.inf)
    assert hidden.mean() == pytest.approx(0.2, abs=0.03)
    unknown = columns_of(timed(split, np.where(times < 0.5, np.nan, times)))
    hidden, without = hidden_pairs(unknown, np.random.default_rng(0), last=True), unknown.times.isnan().numpy()
    for user in np.unique(users):
        own = users == user
        assert not (hidden & without)[own].any() or hidden[own & ~without].all(), "what has no time came first"


def test_hidden_pairs_of_strangers_are_ranked_by_the_average_users_list(catalogue):
    """Users whose pairs are all late are looked at, and their worth is that of the weighted mean of the others' u."""
    split = catalogue[1]
    late = np.isin(split.train.users, np.arange(0, 120, 6))
    trials = trials_of(timed(split, late.astype(float)), hide="latest")
    rng = np.random.default_rng(0)
    held_out = trials.hiding(latest_pairs(trials.columns), rng)
    assert held_out.looked.tolist() == list(range(0, 120, 6))
    found = trials.at(trials.start, held_out)
    with torch.no_grad():
        contents = trials.contents[4]
        users, items, observed = short_fit(trials.model, held_out.known, contents, "point", trials.sweeps + 1)
    counts = torch.bincount(held_out.known.users, minlength=120).double()
    weights = torch.where(counts > 0, counts.clamp(min=1) ** -0.5, 0.0)
    users[counts == 0] = weights @ users / weights.sum()
    wanted = worth_of(trials.model, users, items, ~observed, held_out, trials.scales)
    assert torch.allclose(found.of_users, wanted) and len(torch.unique(wanted[:, 4])) > 5


def test_which_pairs_are_hidden_follows_from_the_split(catalogue):
    assert Options.of("coordinate", split="time").fit.hide == "latest"
    assert Options.of("coordinate", split="time", train_file="x.csv").fit.hide == "random"
    assert Options.of("coordinate", split="last").fit.hide == "last"
    assert (
        Options.of("coordinate").fit.hide == "random" and Options.of("coordinate", hide="latest").fit.hide == "latest"
    )
    dataset, split = catalogue
    with pytest.raises(
        InputError, match="--hide latest is of pairs with times, and these have none; use --hide random"
    ):
        inference.fit(dataset, split, method="coordinate", mode="map", tune=2, hide="latest", **SMALL)
    times = np.arange(len(dataset.interactions), dtype=float)
    dataset = replace(dataset, interactions=replace(dataset.interactions, times=times), truth=None)
    for split_kind in ("time", "last"):
        fit = inference.fit(dataset, split_kind, method="coordinate", mode="map", tune=2, **SMALL)
        assert len(fit.metrics["tuning"]) == 3, "two of unchosen items, one of new ones"


def test_pairs_of_whole_items_alone_are_hidden_where_a_split_holds_items_out(catalogue, monkeypatch):
    assert Options.of("coordinate", split="items").fit.hide == "items"
    assert Options.of("coordinate", split="items", train_file="x.csv").fit.hide == "random"
    assert Options.of("coordinate", split="items", model="pmf").fit.hide == "random"
    with pytest.raises(InputError, match=r"--hide is .items., but it must be random, latest or last with --model pmf"):
        Options.of("coordinate", hide="items", model="pmf")
    dataset, split = catalogue
    seen, own = {}, _Trials.worth
    monkeypatch.setattr(
        _Trials, "worth", lambda self, at, held, kind: seen.update({kind: held}) or own(self, at, held, kind)
    )
    fit = inference.fit(dataset, split, method="coordinate", mode="map", tune=4, hide="items", **SMALL)
    assert [row["cold"] for row in fit.metrics["tuning"]] == ["new"] * 4 + ["unchosen"]
    left = torch.bincount(seen["new"].known.items, minlength=240)
    assert len(seen["new"].items) > 50 and not left[seen["new"].items].any()
    whole = torch.from_numpy(split.train.item_counts)
    assert all(a in (0, b) for a, b in zip(left.tolist(), whole.tolist(), strict=True)), "an item is hidden or whole"
    of_new, of_unchosen = (
        next(row["cold_scale"] for row in fit.metrics["tuning"] if row["taken"] == "yes" and row["cold"] == kind)
        for kind in ("new", "unchosen")
    )
    assert fit.model.scale_of_new_items == pytest.approx(of_new)
    scales = fit.model.content_scale
    assert of_unchosen == pytest.approx(1.0 if scales is None else float(scales[:-1][whole == 0].unique()))


def test_nothing_is_chosen_where_hidden_items_leave_their_users_nothing(catalogue, caplog):
    dataset, _ = catalogue
    rng = np.random.default_rng(0)
    pairs = dataset.interactions.select(rng.random(len(dataset.interactions)) < 60 / len(dataset.interactions))
    few = replace(dataset, interactions=pairs, truth=None)
    with caplog.at_level("INFO", "pyro_cvae"):
        fit = inference.fit(few, "none", method="coordinate", mode="map", tune=4, hide="items", **SMALL)
    assert "tuning" not in fit.metrics and "training pairs can be hidden, but 50 are needed" in caplog.text


def test_few_pairs_of_new_items_keep_nobody_from_settings_of_unchosen_ones(catalogue, monkeypatch):
    dataset, split = catalogue
    own = choosing.hidden_items
    monkeypatch.setattr(choosing, "hidden_items", lambda *given: own(*given) & False)
    fit = inference.fit(dataset, split, method="coordinate", mode="map", tune=4, **SMALL)
    assert [row["cold"] for row in fit.metrics["tuning"]] == ["unchosen"] * 4
    taken = next(row["cold_scale"] for row in fit.metrics["tuning"] if row["taken"] == "yes")
    assert fit.model.scale_of_new_items == pytest.approx(taken), "of no pairs nothing else is learned"
    fit = inference.fit(dataset, split, method="coordinate", mode="map", tune=4, cold="new", **SMALL)
    assert "tuning" not in fit.metrics


def test_b_and_the_users_shrinkage_move_together_too(catalogue):
    split = catalogue[1]
    assert trials_of(split).moving == [("b",), ("user_shrinkage",), ("item_shrinkage",), ("b", "user_shrinkage")]
    assert trials_of(split, lambda_u=3.0).moving == [("b",), ("item_shrinkage",)]
    assert Settings(9, 1.0, 2.0, 3.0).times(("b", "user_shrinkage"), 4.0) == Settings(9, 4.0, 8.0, 3.0)


def test_a_scale_is_taken_where_it_is_surely_better():
    users = torch.zeros(100, 2, dtype=torch.float64)
    users[:, 1] = 0.01 + 0.5 * torch.tensor([1.0, -1.0]).repeat(50)
    assert Worth(users, (1.0, 2.0)).scale == 1.0
    users[:, 1] = 0.1 + 0.5 * torch.tensor([1.0, -1.0]).repeat(50)
    assert Worth(users, (1.0, 2.0)).scale == 2.0 and Worth(users, (1.0, 2.0)).value == pytest.approx(0.1)


@pytest.mark.parametrize(("hide", "power"), [("random", 0.0), ("last", 0.0), ("last", 0.75), ("latest", 0.5)])
def test_steps_climb_to_where_hidden_pairs_rank_best(catalogue, monkeypatch, hide, power):
    """On a known hill the search ends at its top, and no trial but these counts; b's power with later pairs alone."""
    trials = trials_of(catalogue[1], hide=hide)
    top = Settings(4, trials.start.b * 16, trials.start.user_shrinkage / 4, trials.start.item_shrinkage * 2, power)

    def at(self, settings, held_out, kind="unchosen"):
        self.rows.append({})
        factors = [name for name in vars(top) if name != "b_power"]
        away = sum(abs(np.log2(getattr(settings, name) / getattr(top, name))) for name in factors)
        away += 4 * abs(settings.b_power - top.b_power)
        assert hide != "random" or not settings.b_power
        return Worth(torch.full((10, 1), -away, dtype=torch.float64), (1.0,))

    monkeypatch.setattr(_Trials, "at", at)
    best, scale = choosing._best(trials, None, 100)
    assert vars(best) == pytest.approx(vars(top)) and scale == 1.0
    trials.rows.clear()
    trials.tried.clear()
    choosing._best(trials, None, 4)
    assert len(trials.rows) == 4


def test_earlier_networks_are_taken_where_they_rank_better(catalogue):
    """Contents that say what items are, beside contents that say nothing, whichever came first."""
    dataset, split = catalogue
    torch.manual_seed(1)
    told = torch.from_numpy(dataset.truth["z"]).double()
    nothing = torch.randn_like(told)
    for contents, wanted in (
        ({1: told, 2: nothing, 4: nothing}, 1),
        ({1: nothing, 2: told, 4: nothing}, 2),
        ({1: nothing, 2: nothing, 4: told}, 4),
        ({1: told, 2: told, 4: told}, 4),
    ):
        trials = trials_of(split, contents)
        hidden = hidden_pairs(trials.columns, np.random.default_rng(0))
        best = choosing._networks(trials, trials.hiding(hidden, np.random.default_rng(0)), "unchosen")
        assert best.epochs == wanted and [row["epochs"] for row in trials.rows] == [4, 2, 1]
    trials = trials_of(split, {1: told, 4: nothing}, tune=1)
    assert choosing._networks(trials, None, "unchosen").epochs == 4 and not trials.rows, "one trial is of no use"


@pytest.mark.parametrize("cold", ["new", "unchosen"])
def test_settings_are_chosen_by_the_kind_of_unrated_items_that_there_are(catalogue, cold, caplog):
    dataset, split = catalogue
    fit = inference.fit(dataset, split, method="coordinate", mode="map", tune=4, cold=cold, **SMALL)
    kinds = [(row["cold"], row["epochs"]) for row in fit.metrics["tuning"]]
    assert kinds[:3] == [(cold, 4), (cold, 2), (cold, 1)]
    assert [kind for kind, _ in kinds[3:]] == (["new"] if cold == "new" else ["unchosen", "new"])
    found = [row["cold_scale"] for row in fit.metrics["tuning"] if row["taken"] == "yes"]
    assert fit.model.scale_of_new_items == pytest.approx(found[-1])
    unrated = torch.from_numpy(split.train.item_counts == 0)
    scales = fit.model.content_scale
    assert found[0] == pytest.approx(1.0 if scales is None else float(scales[:-1][unrated].unique()))


@pytest.mark.parametrize("method", ["coordinate", "svi"])
def test_a_fit_goes_on_from_the_networks_that_were_chosen(catalogue, monkeypatch, method):
    dataset, split = catalogue
    seen = []

    def choose(model, columns, contents, options):
        seen.append(contents)
        return 2, []

    monkeypatch.setattr(networks, "choose", choose)
    own = {"epochs": 0, "sweeps": 2} if method == "coordinate" else {"epochs": 2, "learning_rate": 0.0}
    shared = {name: value for name, value in SMALL.items() if name not in ("sweeps", "epochs")}
    options = Options.of(method, mode="map", tune=3, **shared | own)
    kept = Pretrained()
    fits = [fit_with(dataset, split, options, pretrained=kept) for _ in range(2)]
    for contents, fit in zip(seen, fits, strict=True):
        assert sorted(contents) == [0, 1, 2, 4]
        assert all(not torch.equal(contents[0], contents[epoch]) for epoch in (1, 2, 4))
        assert torch.equal(fit.posterior.z_loc, contents[2])
        assert torch.equal(contents[1], seen[0][1]) and torch.equal(contents[4], seen[0][4])


def test_without_trials_no_earlier_networks_are_kept(catalogue):
    dataset, split = catalogue
    kept = Pretrained()
    for tune in (0, 2):
        fit_with(dataset, split, Options.of("coordinate", mode="map", tune=tune, **SMALL), pretrained=kept)
        assert any(".early." in name for name in kept._tensors) == (tune > 0)


@pytest.mark.parametrize("away", [0.0, 0.4, 0.6, -0.6, 1.3])
def test_steps_of_two_are_tried_where_the_parabola_through_steps_of_four_is_higher(catalogue, monkeypatch, away):
    """On a parabola of the logarithm of the shrinkage of items, no step that is left out is better than those taken."""
    trials, asked = trials_of(catalogue[1]), list[Settings]()

    def worth(settings):
        return -((np.log2(settings.item_shrinkage / trials.start.item_shrinkage) - away) ** 2)

    def at(self, settings, held_out, kind="unchosen"):
        self.rows.append({})
        asked.append(settings)
        return Worth(torch.full((10, 1), float(worth(settings)), dtype=torch.float64), (1.0,))

    monkeypatch.setattr(_Trials, "at", at)
    trials.moving = [("item_shrinkage",)]
    best, _ = choosing._best(trials, None, 100)
    steps = {round(float(np.log2(one.item_shrinkage / trials.start.item_shrinkage))) for one in asked}
    assert {0, 2} <= steps
    assert worth(best) == max(worth(trials.start.times(["item_shrinkage"], 2.0**k)) for k in range(-3, 4))
    assert (1 in steps) == (away > 0.5) and (-1 in steps) == (away < -0.5)


def test_a_fit_finds_settings_and_says_what_it_tried(catalogue, tmp_path):
    dataset, split = catalogue
    fits = [
        inference.fit(dataset, split, method="coordinate", mode="map", tune=7, out=out, **SMALL)
        for out in (tmp_path / "run", None)
    ]
    trials = fits[0].metrics["tuning"]
    assert len(trials) == 8 and [row["cold"] for row in trials] == ["unchosen"] * 7 + ["new"]
    assert trials == fits[1].metrics["tuning"]
    assert torch.equal(fits[0].posterior.v_loc, fits[1].posterior.v_loc)
    assert [row["taken"] for row in trials].count("yes") == 2
    best = trials[-1]
    assert best["worth"] >= 0 and max(row["worth"] for row in trials[:-1]) >= trials[0]["worth"]
    model = fits[0].model
    assert model.ratings.background == best["b"] and model.ratings.site(columns_of(split)).zero_precision == best["b"]
    assert model.scale_of_new_items == pytest.approx(best["cold_scale"])
    again = inference.load(tmp_path / "run")
    assert again.model.ratings.background == best["b"] and again.model.lambda_u == model.lambda_u
    assert again.metrics["tuning"] == trials
    assert torch.equal(again.posterior.mean("v_dagger"), fits[0].posterior.mean("v_dagger"))


def test_nothing_is_chosen_where_no_user_has_two_pairs(catalogue, caplog):
    dataset, _ = catalogue
    with caplog.at_level("INFO", "pyro_cvae"):
        fit = inference.fit(dataset, per_user(dataset, 1, 0), method="coordinate", mode="map", tune=7, **SMALL)
    plain = inference.fit(dataset, per_user(dataset, 1, 0), method="coordinate", mode="map", **SMALL)
    assert "tuning" not in fit.metrics and "0 training pairs can be hidden, but 50 are needed" in caplog.text
    assert torch.equal(fit.posterior.v_loc, plain.posterior.v_loc)


# --- c ----------------------------------------------------------------------------------------------------------------


def scaled(**changes):
    """The toy model whose unrated items lie at 1.7 z, those that are not in the data at 2.5 z."""
    observations = toy_observations()
    observed = observations.columns.observed.clone()
    observed[[1, 4]] = False
    stored = observed[observations.columns.items]
    columns = observations.columns
    counts = torch.bincount(columns.items[stored], minlength=len(columns))
    columns = RatingColumns(
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]), columns.users[stored], columns.ratings[stored],
        columns.confidences[stored], observed, columns.n_users,
    )  # fmt: skip
    model = toy_model(**changes)
    model.scale_contents(~observed, 1.7, 2.5)
    return model, type(observations)(observations.content, observations.inputs, columns)


@pytest.mark.parametrize("parametrization", ["centred", "non-centred"])
def test_the_story_has_unrated_items_around_c_z(parametrization):
    model, observations = scaled(parametrization=parametrization)
    check_story(model, observations)
    z = torch.randn(N_ITEMS, N_FACTORS, dtype=torch.float64)
    c = torch.tensor([1.0 if one else 1.7 for one in observations.columns.observed], dtype=torch.float64)[:, None]
    assert torch.equal(model.prior_of_items(z).loc[:, :N_FACTORS], c * z)
    some = torch.tensor([0, 4])
    assert torch.equal(model.prior_of_items(z[some], items=some).loc[:, :N_FACTORS], (c * z)[some])
    assert torch.equal(model.prior_of_new_items(z).loc[:, :N_FACTORS], 2.5 * z)
    model.scale_contents(~observations.columns.observed, 1.0, 1.0)
    assert model.content_scale is None


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("parametrization", "kind"),
    [("centred", "point"), ("centred", "mean-field"), ("non-centred", "point"), ("non-centred", "mean-field")],
)
def test_named_parts_add_up_to_pyros_elbo_with_c(parametrization, kind, failure_rate):
    torch.manual_seed(0)
    model, observations = scaled(parametrization=parametrization)
    start = torch.randn(N_USERS, N_FACTORS).double(), torch.randn(N_ITEMS, N_FACTORS).double()
    guide = make_guide(model, kind, observations, *start, scale=0.3)
    batch = observations.batch(torch.arange(N_ITEMS))

    def named():
        return total({name: float(value) for name, value in NamedELBO().terms(model, guide, batch).items()})

    with torch.no_grad():
        draws = [torch.tensor([draw() for _ in range(n)], dtype=torch.float64) for draw, n in (
            (lambda: named() + constant(model, observations), 200),
            (lambda: -Trace_ELBO().loss(model, guide, batch), 600),
        )]  # fmt: skip
    (ours, our_error), (theirs, their_error) = ((float(d.mean()), float(d.std() / len(d) ** 0.5)) for d in draws)
    bound = -Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2 / 4))
    assert abs(ours - theirs) < bound * np.hypot(our_error, their_error)


@pytest.mark.parametrize("biases", ["off", "on"])
@pytest.mark.parametrize("mode", ["map", "bayes"])
def test_unrated_items_are_at_c_z_and_new_ones_too(catalogue, tmp_path, mode, biases):
    dataset, split = catalogue
    how = {"method": "coordinate", "mode": mode, "biases": biases, **SMALL}
    fit = inference.fit(dataset, split, cold_scale=1.5, out=tmp_path / "run", **how)
    unrated = torch.as_tensor(split.train.item_counts == 0)
    assert bool(unrated.any())
    z, v = fit.posterior.z_loc[unrated], fit.posterior.v_loc[unrated]
    assert torch.allclose(v[:, :4], 1.5 * z, atol=1e-6)
    assert torch.allclose(fit.posterior.mean("v_dagger")[unrated], torch.zeros_like(v), atol=1e-6)
    again = inference.load(tmp_path / "run")
    loc, scale = again.encode(dataset.content.counts[:3])
    m, sd = again.encode_content(dataset.content.counts[:3])
    assert torch.allclose(loc, 1.5 * m) and torch.allclose(scale**2, 2.25 * sd**2 + 1 / fit.posterior.lambda_v)
    added = add_items(again, ["p", "q"], counts=dataset.content.counts[:2]).posterior
    assert torch.allclose(added.v_loc[-2:, :4], 1.5 * added.z_loc[-2:])
    assert added.content_scale.tolist() == pytest.approx([*np.where(unrated, 1.5, 1.0), 1.5, 1.5])
    assert float(added.mean("v_dagger")[-2:].abs().max()) < 1e-6
    drawn = again.draw_sites(500)
    away = drawn["v"][:, unrated][..., :4].mean(0) - 1.5 * z
    sd = float((again.posterior.v.variances()[unrated, :4]).max()) ** 0.5 if mode == "bayes" else 0.0
    assert float(away.abs().max()) <= 6 * sd / 500**0.5 + 1e-5


def test_rated_items_are_as_without_c(catalogue):
    """Points of rated items and users do not depend on where unrated ones lie."""
    dataset, split = catalogue
    how = {"method": "coordinate", "mode": "map", **SMALL, "epochs": 0}
    with_c, without = (inference.fit(dataset, split, cold_scale=c, **how).posterior for c in (2.0, None))
    rated = torch.as_tensor(split.train.item_counts > 0)
    assert torch.equal(with_c.u_loc, without.u_loc) and torch.equal(with_c.v_loc[rated], without.v_loc[rated])
    assert not torch.equal(with_c.v_loc, without.v_loc)


def test_svi_has_unrated_items_at_c_z(catalogue):
    dataset, split = catalogue
    unrated = torch.as_tensor(split.train.item_counts == 0)
    for parametrization in ("centred", "non-centred"):
        how = {"mode": "bayes", "cold_scale": 1.5, "parametrization": parametrization, **SMALL}
        how.pop("sweeps")
        q = inference.fit(dataset, split, **how).posterior
        assert torch.allclose(q.v_loc[unrated], 1.5 * q.z_loc[unrated], atol=1e-5)
        own = q.own_variance()
        if own is not None:
            whole = q.v.variance - pad(2.25 * q.z.variance, (0, 0))
            assert torch.allclose(own[unrated], whole[unrated], atol=1e-6)


def test_the_objectives_gradient_is_zero_at_a_map_fit_with_c(catalogue):
    """Autograd of the Pyro program in u and v, in float64, at the fixed point of sweeps over held contents."""
    dataset, split = catalogue
    how = SMALL | {"epochs": 0, "sweeps": 2000, "dtype": "float64", "cold_scale": 1.6, "quiet": True}
    fit = inference.fit(dataset, split, method="coordinate", mode="map", lambda_u=20.0, lambda_v=5.0, **how)
    story = fit.pyro_model()
    sites = {"u": fit.posterior.u_loc, "v": fit.posterior.v_loc, "z": fit.posterior.z_loc}
    sites = {name: value.clone().requires_grad_(name != "z") for name, value in sites.items()}
    log_joint = poutine.trace(poutine.condition(story, data=sites)).get_trace().log_prob_sum()
    for gradient in torch.autograd.grad(log_joint, [sites["u"], sites["v"]]):
        assert float(gradient.abs().max()) < 1e-4


class OwnPrior(FactorModel):
    """Has a prior of v of its own."""

    def prior_of_items(self, m, above=None, items=None):
        return super().prior_of_items(m, items=items)


@pytest.mark.parametrize(
    ("method", "options", "says"),
    [
        ("coordinate", {"tune": 3, "rating_likelihood": "bernoulli-bound"}, "tune is 3, but it must be 0 unless"),
        ("coordinate", {"tune": 3, "rating_likelihood": "normal"}, "tune is 3, but it must be 0 unless"),
        ("mcmc", {"tune": 3, "mode": "bayes"}, "0 in inference.mcmc"),
        ("coordinate", {"cold_scale": 2.0, "mode": "bayes", "guide": "structured"}, "1 with --guide structured"),
        ("coordinate", {"cold_scale": -1.0}, "a finite number, 0 or more"),
        ("coordinate", {"tune": -1}, "0 or more"),
    ],
)
def test_what_does_not_go_together_is_refused(method, options, says):
    with pytest.raises(InputError, match=says):
        Options.of(method, **options)


def test_unrated_items_are_new_where_items_are_held_out():
    assert Options.of("coordinate", split="items").model.cold == "new"
    assert Options.of("coordinate").model.cold == "unchosen"
    assert Options.of("coordinate", split="items", cold="unchosen").model.cold == "unchosen"
    assert Options.of("coordinate", split="items", train_file="x.csv").model.cold == "unchosen"


@pytest.mark.parametrize("scale", [torch.ones(3), torch.full((241,), -1.0), torch.full((241,), torch.nan)])
def test_a_scale_that_makes_no_sense_in_a_run_is_refused(catalogue, tmp_path, scale):
    dataset, split = catalogue
    fit = inference.fit(dataset, split, method="coordinate", mode="map", cold_scale=2.0, out=tmp_path / "run", **SMALL)
    path = tmp_path / "run" / "posterior.safetensors"
    tensors = read_tensors(Listed(path.parent, {path.name}), path.name, "")
    write_tensors(path, tensors | {"network.content_scale": scale})
    write_manifest(tmp_path / "run", [file for file in files_in(tmp_path / "run") if file.name != "manifest.json"])
    with pytest.raises(InputError, match=r"posterior\.safetensors: content_scale has"):
        inference.load(fit.path)


def test_a_report_says_how_contents_count(catalogue, tmp_path):
    dataset, split = catalogue
    for c, said in ((1.5, "contents of unrated items count 1.5 times, of new ones 1.5 times"), (None, "lambda_v")):
        out = tmp_path / f"run-{c}"
        inference.fit(dataset, split, method="coordinate", mode="map", cold_scale=c, out=out, **SMALL)
        facts = fit_facts(inference.load(out), open_run(out))
        assert said in facts["Precisions"] and ("count" in facts["Precisions"]) == (c is not None)


@pytest.mark.parametrize("mode", ["map", "bayes"])
def test_every_command_takes_a_run_with_c(catalogue, tmp_path, mode, capsys):
    dataset, split = catalogue
    out, other = tmp_path / "run", tmp_path / "other"
    for run, c in ((out, 1.5), (other, None)):
        inference.fit(dataset, split, method="coordinate", mode=mode, cold_scale=c, out=run, **SMALL)
    for command, arguments in (
        (analysis.diagnostics.main, [str(out), "--draws", "100"]),
        (analysis.report.main, [str(out), "--out", str(tmp_path / "report.html")]),
        (analysis.compare.main, [str(out), str(other), "--out", str(tmp_path / "compared")]),
        (inference.evaluate.main, [str(out)]),
    ):
        command(arguments)
    assert len(recommend(inference.load(out), dataset.user_ids[:1], 5)) == 5
    if mode == "bayes":
        analysis.posterior.main([str(out), "--draws", "100", "--out", str(tmp_path / "posterior.nc")])
    assert capsys.readouterr().out


def test_draws_of_the_prior_are_around_c_z(catalogue):
    """Of unrated items v - 1.5 z, of rated ones v - z: both of precision lambda_v, within five standard errors."""
    dataset, split = catalogue
    fit = inference.fit(dataset, split, method="coordinate", mode="map", cold_scale=1.5, lambda_v=4.0, **SMALL)
    items = np.arange(0, dataset.n_items, 3)
    c = np.where(split.train.item_counts == 0, 1.5, 1.0)[items]
    away = [
        (drawn["v"][..., :4] - torch.as_tensor(c)[:, None] * drawn["z"])
        for _, _, drawn in prior_blocks(fit, np.arange(5), items, 200, 0)
    ]
    spread = torch.cat(away).square().mean((0, 2))
    assert float((spread - 0.25).abs().max()) < 5 * 0.25 * (2 / (200 * 4)) ** 0.5


@pytest.mark.parametrize("c", [0.0, 3.0])
def test_a_given_c_counts_once_in_the_trials(catalogue, monkeypatch, c):
    """Short fits are without c: it is applied to every item that is unrated there, as to those that are in the fit."""
    dataset, split = catalogue
    seen = []
    short = choosing.short_fit
    monkeypatch.setattr(choosing, "short_fit", lambda model, *a: seen.append(model.content_scale) or short(model, *a))
    fit = inference.fit(dataset, split, method="coordinate", mode="map", cold_scale=c, tune=2, **SMALL)
    assert seen == [None] * 4, "a trial of each network, and the sweep that it goes on from"
    assert fit.model.scale_of_new_items == c and {row["cold_scale"] for row in fit.metrics["tuning"]} == {max(c, 1e-6)}


class Own(ConfidenceNormal):
    """A site of one's own, that knows nothing of weights."""

    def site(self, columns, second=None):
        return GaussianSite(columns.confidences, columns.confidences * columns.ratings, self.b)


def test_no_power_of_popularity_is_looked_for_where_a_likelihood_may_not_know_it(catalogue):
    for name, wanted in (("confidence-normal", True), (f"{Own.__module__}.Own", False)):
        trials = trials_of(catalogue[1], hide="last", rating_likelihood=name, biases="off")
        assert (("b_power",) in trials.moving) == wanted and ("b",) in trials.moving
        assert trials.start.b_power == 0.0
        trials.set(trials.start)
    assert Own(b_power=0.5).b_power == 0.5, "who gives one knows what it is"


def test_a_likelihood_of_ones_own_may_set_b():
    class Own(ConfidenceNormal):
        def __init__(self, b=0.5):
            super().__init__(1.0, 0.1)
            self.b = b

    own = Own(0.25)
    assert own.b == own.background == 0.25
    own.weigh_zeros(2.0)
    assert own.b == 2.0


@pytest.mark.parametrize("way", ["torch", "auto"])
def test_scores_above_targets_are_counted(way):
    """Against comparison of all with all: ties are not above, nor is what is left out (-inf)."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 9, (7, 40), generator=generator).double()
    scores[2], scores[3, ::2] = -torch.inf, -torch.inf
    at = torch.tensor([0, 0, 0, 2, 3, 3, 6])
    target = torch.randint(-1, 10, (len(at), 3), generator=generator).double()
    counted = (scores[at][:, :, None] > target[:, None]).sum(1)
    with kernel(way):
        assert torch.equal(count_above(scores, at, target), counted)
        assert not count_above(scores[:, :0], at, target).any()


@pytest.mark.parametrize(("sweeps", "wanted"), [(1, 2), (4, 4), (30, choosing.MOST)])
def test_a_trial_has_as_many_sweeps_as_the_fit_will_have(catalogue, monkeypatch, sweeps, wanted):
    """After fewer, settings would win that rank well before they have converged and badly at the end."""
    dataset, split = catalogue
    seen = []
    short = choosing.short_fit
    counting = lambda *a: seen.append(a[4]) or short(*a)  # noqa: E731
    monkeypatch.setattr(choosing, "short_fit", counting)
    inference.fit(dataset, split, method="coordinate", mode="map", tune=3, **SMALL | {"sweeps": sweeps})
    shared, *others = seen[:2]
    assert shared == 1 and others == [wanted - 1]


@pytest.mark.parametrize("biases", ["off", "on"])
@torch.no_grad()
def test_all_trials_go_on_from_one_sweep_at_the_settings_that_are_given(catalogue, biases):
    """A trial does not depend on those before it, and one at the given settings is a fit of all its sweeps."""
    trials = trials_of(catalogue[1], biases=biases)
    rng = np.random.default_rng(0)
    held_out = trials.hiding(hidden_pairs(trials.columns, rng), rng)
    far = trials.start.times(["b"], 4.0)
    first, other = trials.at(trials.start, held_out).of_users, trials.at(far, held_out).of_users
    assert not torch.allclose(first, other)
    again = trials_of(catalogue[1], biases=biases)
    assert torch.equal(again.at(far, held_out).of_users, other)
    trials.set(trials.start)
    users, items, observed = short_fit(trials.model, held_out.known, trials.contents[4], "point", trials.sweeps + 1)
    wanted = worth_of(trials.model, users, items, ~observed, held_out, trials.scales)
    assert torch.allclose(first, wanted, atol=1e-12)
