"""When Bayes pays (benchmarks.when_bayes): rows that are kept, intervals, log scores, users who are folded in."""

import logging

import numpy as np
import pytest
from scipy.stats import norm, ttest_rel

from benchmarks import when_bayes
from benchmarks.bayes_study import clicks, exploring, figure, gaussian, new_users, stars, summary
from benchmarks.bayes_study.store import FILE, Key, Store
from benchmarks.study.paired import paired_interval
from inference.evaluation.ratings import rating_metrics
from pyro_cvae.data.simulated import simulated, simulated_gaussian, simulated_stars
from pyro_cvae.data.splits import per_user
from pyro_cvae.errors import InputError

CASE = Key("stars", "5 ratings", 0, "map, defaults")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, {"data": "tiny"})


@pytest.fixture(scope="module")
def rated():
    return simulated_stars(3, n_users=40, n_items=50, n_words=40, exposure=0.3)


@pytest.fixture(scope="module")
def fits(rated):
    return stars.Stars(rated, hidden=(5,), factors=3, pretrain_epochs=1, sweeps=3)


@pytest.fixture(autouse=True)
def hushed(caplog):
    """Contents of so few words are faint, which is said in a warning."""
    caplog.set_level(logging.CRITICAL, "pyro_cvae")


# --- rows that are kept -----------------------------------------------------------------------------------------------


def test_a_row_is_measured_once(store, tmp_path):
    found = {"rmse": 0.91, "settings": {"user_shrinkage": 20.0}, "seconds": 2.5}
    assert store.measured(CASE, lambda: found) == found
    again = Store(tmp_path, {"data": "tiny"})
    assert again.rows == {CASE: found}
    assert again.measured(CASE, lambda: pytest.fail("measured twice")) == found
    assert again.of("stars", "5 ratings", "map, defaults", "rmse") == {0: 0.91}
    assert again.of("stars", "5 ratings", "map, defaults", "recall@50") == {}


def test_a_line_that_was_cut_off_is_measured_again(store, tmp_path):
    for split in range(3):
        store.measured(CASE._replace(split=split), lambda split=split: {"rmse": 1.0 + split})
    whole = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(whole[:-4])
    again = Store(tmp_path, {"data": "tiny"})
    assert sorted(key.split for key in again.rows) == [0, 1]
    again.measured(CASE._replace(split=2), lambda: {"rmse": 3.0})
    assert Store(tmp_path, {"data": "tiny"}).of(*CASE[:2], CASE.model, "rmse") == {0: 1.0, 1: 2.0, 2: 3.0}


def test_a_folder_of_other_data_is_refused(store, tmp_path):
    with pytest.raises(InputError, match="has rows of other data"):
        Store(tmp_path, {"data": "other"})


def test_a_stopped_part_goes_on_where_it_was(tmp_path, rated, monkeypatch):
    """Half of the rows are there: the others alone are measured, and the file is that of a study in one go."""
    asked = []

    class Counted(stars.Stars):
        def measure(self, split, settings):
            asked.append((len(split.train), settings))
            return {"rmse": float(len(asked)), "log_score": -1.0, "coverage": 0.9}

        def tuned(self, split, seed):
            return {**self.measure(split, {}), "settings": {"user_shrinkage": 1.0}}

    monkeypatch.setattr(stars, "Stars", Counted)
    store = Store(tmp_path, {})
    stars.run(store, rated, 1, numbers=(3, 5))
    assert len(asked) == len(store.rows) == 2 * (len(stars.MODELS) + 1 + len(stars.FAMILIES))
    lines = (tmp_path / FILE).read_text().splitlines(keepends=True)
    (tmp_path / FILE).write_text("".join(lines[: len(lines) // 2]) + lines[-1][:5])
    missing = len(lines) - len(lines) // 2
    asked.clear()
    store = Store(tmp_path, {})
    stars.run(store, rated, 1, numbers=(3, 5))
    assert len(asked) == missing and len(store.rows) == len(lines) - 1


# --- what is computed of rows -----------------------------------------------------------------------------------------


def test_intervals_are_those_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    mine, theirs = rng.normal(size=(2, 5))
    mean, half = paired_interval(mine, theirs)
    other = ttest_rel(mine, theirs).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((other.low, other.high))
    assert np.isnan(paired_interval([1.0], [2.0])[1])


def test_differences_are_over_the_splits_that_both_have(store):
    for split, (mine, theirs) in enumerate([(1.0, 2.0), (3.0, 3.5), (9.0, None)]):
        store.measured(CASE._replace(split=split, model="bayes, defaults"), lambda one=mine: {"rmse": one})
        if theirs is not None:
            store.measured(CASE._replace(split=split), lambda one=theirs: {"rmse": one})
    found = summary.less(store, CASE[:2], "rmse", "bayes, defaults", "map, defaults")
    assert (found.mean, found.n) == (-0.75, 2)
    assert summary.less(store, CASE[:2], "rmse", "bayes, defaults", "map, tuned") is None


# --- log scores -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["map, defaults", "bayes, defaults"])
def test_log_score_of_stars_is_that_of_the_formula(rated, fits, name):
    """log N(r; u.v, 1/tau) at the point of ``map``; in ``bayes`` the variance of u.v is added to that of the noise."""
    split = per_user(rated, 5, 0)
    fit = fits.fit(split, stars.MODELS[name])
    test, posterior = split.test, fit.posterior
    u, v = (side.loc.double().numpy() for side in (posterior.u, posterior.v))
    mean = (u[test.users] * v[test.items]).sum(1)
    variance = np.full(len(test), 1 / float(fit.model.ratings.tau.detach()))
    if name.startswith("bayes"):
        draws = posterior.score_draws(test.users, test.items, 20_000, 0).double().numpy()
        assert posterior.score(test.users, test.items)[1].numpy() == pytest.approx(draws.std(0), rel=0.1)
        variance = variance + posterior.score(test.users, test.items)[1].double().numpy() ** 2
    given = split.train.ratings
    mean = mean.clip(given.min(), given.max())
    direct = norm.logpdf(test.ratings, mean, np.sqrt(variance)).mean()
    assert stars.scored(fit.metrics)["log_score"] == pytest.approx(direct, abs=1e-4)


def test_expected_scores_are_those_of_drawn_ratings():
    """Log score and coverage over many new ratings, counted."""
    rng = np.random.default_rng(0)
    truth, mean, variance = rng.normal(size=30), rng.normal(size=30), rng.uniform(0.1, 1, 30)
    found = gaussian.expected(truth, 4.0, gaussian.Predicted(mean, variance, 0.5))
    drawn = truth + rng.normal(size=(40_000, 30)) / 2
    sd = np.sqrt(variance + 0.5)
    assert found["log_score"] == pytest.approx(norm.logpdf(drawn, mean, sd).mean(), abs=0.005)
    low, high = norm.interval(0.9, mean, sd)
    assert found["coverage"] == pytest.approx(((low <= drawn) & (drawn <= high)).mean(), abs=0.003)
    low, high = norm.interval(0.9, mean, np.sqrt(variance))
    assert found["coverage_scores"] == ((low <= truth) & (truth <= high)).mean()
    assert found["rmse"] == pytest.approx(np.linalg.norm(truth - mean) / 30**0.5)


# --- the parts --------------------------------------------------------------------------------------------------------


def test_settings_of_stars_see_training_ratings_alone(rated, fits, monkeypatch):
    split, seen = per_user(rated, 5, 0), []

    def measure(part, settings):
        seen.append(part)
        return {"rmse": abs(settings["user_shrinkage"] - 40) + settings["item_shrinkage"]}

    monkeypatch.setattr(fits, "measure", measure)
    assert fits.choose(split, 0) == {"user_shrinkage": 40.0, "item_shrinkage": 1.25}
    train = set(split.train.keys.tolist())
    for part in seen:
        assert set(part.train.keys.tolist()) | set(part.test.keys.tolist()) == train
        assert not set(part.train.keys.tolist()) & set(part.test.keys.tolist())


def test_settings_of_clicks_are_chosen_by_split_but_once_at_one_item(store, monkeypatch):
    """At P = 1 those of the first split serve all, and those of P = 10 are never mixed up with them."""
    asked, used = [], {}

    def choose(self, n, seed, name):
        asked.append((n, seed, name))
        return {"user_shrinkage": 100.0 * n + seed}, 1.0

    def measure(self, split, settings):
        if "user_shrinkage" in settings:
            used.setdefault(split.train.user_counts.max(), []).append(settings["user_shrinkage"])
        return {"recall@50": 0.1, "seconds": 0.5}

    for name, instead in (("choose", choose), ("measure", measure), ("train", lambda self, split: None)):
        monkeypatch.setattr(clicks.Clicks, name, instead)
    clicks.run(store, simulated(n_users=20, n_items=40, n_words=30, n_factors=3), 2)
    assert [one[:2] for one in asked] == [(1, 0)] * 2 + [(10, 0)] * 2 + [(10, 1)] * 2
    assert used == {1: [100.0] * 4, 10: [1000.0] * 2 + [1001.0] * 2}
    assert store.rows[Key("clicks", "P = 1", 1, "map, tuned")]["seconds"] == 1.5


def test_new_users_are_apart(rated):
    new, tuning = new_users.users_apart(rated.n_users, 1)
    assert (new.sum(), tuning.sum(), (new & tuning).sum()) == (8, 4, 0)
    split = new_users.known_only(rated.interactions, new | tuning)
    assert not (new | tuning)[split.train.users].any()
    lists, test = new_users.lists_and_test(rated.interactions, new, 3, 1)
    assert set(lists.user_counts[new]) == {3} and lists.user_counts[~new].sum() == 0
    counts = rated.interactions.user_counts
    assert np.array_equal((lists.user_counts + test.user_counts)[new], counts[new])
    assert not set(lists.keys.tolist()) & set(test.keys.tolist())


def test_new_users_are_scored_as_the_fit_with_them_alone(rated, fits):
    """Users who are folded in one by one have the log score of all at once."""
    new, _ = new_users.users_apart(rated.n_users, 1)
    fit = fits.fit(new_users.known_only(rated.interactions, new), {})
    lists, test = new_users.lists_and_test(rated.interactions, new, 3, 1)
    together = new_users.of_stars(fit, lists, test)
    sums, n = 0.0, 0
    for user in np.flatnonzero(new):
        own, asked = (part.select(part.users == user) for part in (lists, test))
        updated = new_users.folded(fit, own)
        scores = rating_metrics(updated.posterior, fit.model.ratings, asked, updated.split.train)
        sums += len(asked) * scores["log_density"]
        n += len(asked)
    assert together["log_score"] == pytest.approx(sums / n, abs=1e-6)


def test_a_small_study_from_rows_to_figure(store, tmp_path, capsys):
    """Simulated ratings and a feedback loop, two splits: every model has its rows, tables and figure are made."""
    sizes = {"n_users": 15, "n_items": 20, "n_words": 30}
    short = {"hidden": (5,), "pretrain_epochs": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaussian, "SWEPT", {"epochs": 0, "sweeps": 2})
        patch.setattr(gaussian, "GRID", gaussian.GRID[:2])
        patch.setattr(gaussian, "MODELS", {n: how for n, how in gaussian.MODELS.items() if n != gaussian.MONTE_CARLO})
        gaussian.run(store, 2, sizes=sizes, **short)
    little = {"replications": 2, "users": 5, "rounds": 2, "first_items": 12, "new_items": 2}
    exploring.run(store, 2, settings=((0.2, "once", 1),), **little)
    assert {key.split for key in store.rows if key.part == "exploring"} == {0, 1, 2, 3}
    when_bayes.tell(store, ["gaussian", "exploring"])
    told = capsys.readouterr().out
    assert "few ratings" in told and "bayes, thompson" in told and "what choosing costs" in told
    drawn = figure.draw(store, tmp_path / "forest.png")
    assert drawn.stat().st_size > 10_000


def test_truth_is_known_of_held_out_cells():
    """Of a fit without noise in its scores the error is that of the true scores."""
    fits = gaussian.Gaussian(
        simulated_gaussian(1, n_users=15, n_items=20, n_words=30), 1, hidden=(5,), pretrain_epochs=1
    )
    fit = fits.fit(fits.split, "coordinate", {"mode": "map", "epochs": 0, "sweeps": 2})
    test = fits.split.test
    u, v = (side.loc.double().numpy() for side in (fit.posterior.u, fit.posterior.v))
    away = fits.dataset.truth["scores"][test.users, test.items] - (u @ v.T)[test.users, test.items]
    found = fits.measure(fit)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(away**2)), rel=1e-5)
    assert found["log_score"] == pytest.approx(np.mean(norm.logpdf(away)) - 0.5, rel=1e-5)
    assert (gaussian.exposed(test, 1.0).confidences == 1.0).all()
