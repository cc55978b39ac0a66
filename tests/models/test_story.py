"""A story is held to what its methods say of every item: mistakes are planted that only some items, or parts, show."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from models import story
from models.build import make_model
from models.contents.multinomial import Multinomial
from models.cvae import CVAE, VAE
from models.observations import Observations, RatingColumns, SparseRows
from models.pmf import PMF
from models.priors import NOTHING, NormalPrior
from models.rows import NoRows
from models.story import check_story, looked_at
from models.testing import check_model
from pyro_cvae.errors import InputError
from tests.models import own_models
from tests.models.toy import N_WORDS, ToyOptions

N_USERS, N_ITEMS = 12, 150


def columns(n_items=N_ITEMS, n_users=N_USERS, seed=0):
    """Clicks, the later items fewer; the last ten have none."""
    generator = torch.Generator().manual_seed(seed)
    chance = torch.linspace(0.7, 0.05, n_items)[torch.randperm(n_items, generator=generator)]
    stored = torch.rand(n_items, n_users, generator=generator) < chance[:, None]
    stored[-10:] = False
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), stored.sum(1).cumsum(0)])
    ones = torch.ones(int(indptr[-1]), dtype=torch.float64)
    return RatingColumns(indptr, stored.nonzero()[:, 1], ones, ones, stored.any(1), n_users)


def observations(has_content):
    generator = torch.Generator().manual_seed(1)
    counts = torch.poisson(torch.full((N_ITEMS, N_WORDS), 0.8, dtype=torch.float64), generator=generator)
    rows = SparseRows.from_dense(counts) if has_content else NoRows(N_ITEMS)
    return Observations(rows, rows, columns())


def made(cls, wrong=None, **changes):
    torch.manual_seed(0)
    content = (N_WORDS, Multinomial()) if cls.has_content else (None, None)
    model = make_model(N_USERS, N_ITEMS, *content, ToyOptions(**changes), cls).double()
    model.wrong = wrong
    return model


class WrongItems:
    """v of some items around one half more."""

    def factors_of_items(self, m, batch, above=NOTHING):
        return super().factors_of_items(m + 0.5 * self.wrong(batch)[:, None].to(m), batch, above)


class WrongItemsPMF(WrongItems, PMF):
    """Without content."""


class WrongItemsCVAE(WrongItems, CVAE):
    """Beside content."""


class WrongContent(CVAE):
    """z of some items twice as wide."""

    class Prior(VAE):
        def forward(self, batch):
            wide = 1 + self.wrong(batch)[:, None].double().expand(-1, self.n_factors)
            z = pyro.sample("z", dist.Normal(torch.zeros_like(wide), wide).to_event(1))
            x = self.content.conditional(self.decoder, z, batch.content, sampled=False)
            pyro.sample("x", x, obs=batch.content)
            return z

    def __init__(self, n_users, n_items, n_factors, item_prior, ratings, **options):
        own = self.Prior(n_factors, item_prior.encoder, item_prior.decoder, item_prior.content)
        own.wrong = lambda batch: self.wrong(batch)
        super().__init__(n_users, n_items, n_factors, own, ratings, **options)


class WrongRatings(PMF):
    """R of some items at twice the score."""

    def ratings_of(self, u, v, batch):
        super().ratings_of(u, v * (1 + self.wrong(batch)[:, None].to(v)), batch)


class WrongUsers(PMF):
    """u around one half in some minibatches."""

    def factors_of_users(self, above=NOTHING):
        loc = self.prior_of_users(above).loc + 0.5 * self.here
        return pyro.sample("u", NormalPrior(loc, self.lambda_u).distribution)

    def forward(self, batch):
        self.here = bool(self.wrong(batch).any())
        super().forward(batch)


def n_ratings(batch):
    return batch.columns.indptr.diff()


WHERE = {
    "beyond the 100th": lambda batch: batch.items >= 100,
    "one item": lambda batch: batch.items == 57,
    "few ratings": lambda batch: (n_ratings(batch) > 0) & (n_ratings(batch) < 2),
    "many ratings": lambda batch: n_ratings(batch) > 9,
    "not from the first item": lambda batch: (batch.items > 60) & (batch.items[0] > 0),
    "all items at once": lambda batch: (batch.items > 60) & (len(batch.items) == N_ITEMS),
    "by the place in the minibatch": lambda batch: torch.arange(len(batch.items)) % 2 != batch.items % 2,
}
WHAT = {
    WrongItemsPMF: "draws v from another prior than prior_of_items",
    WrongItemsCVAE: "draws v from another prior than prior_of_items",
    WrongContent: r"draws z from another prior than N\(0, I\)",
    WrongRatings: "observes R from another distribution",
    WrongUsers: "draws u from another prior than prior_of_users",
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("cls", WHAT)
def test_a_mistake_of_some_items_is_seen(cls, where):
    with pytest.raises(InputError, match=WHAT[cls]):
        check_story(made(cls, WHERE[where]), observations(cls.has_content))
    check_story(made(cls, lambda batch: torch.zeros(len(batch.items), dtype=torch.bool)), observations(cls.has_content))


@pytest.mark.parametrize("cls", [WrongItemsCVAE, own_models.ShiftedItems])
def test_the_non_centred_story_too(cls):
    model = made(cls, WHERE["one item"], parametrization="non-centred")
    if cls is own_models.ShiftedItems:
        check_story(model, observations(True))
        return
    with pytest.raises(InputError, match="another v than v_dagger around the mean"):
        check_story(model, observations(True))


class ByPlace(own_models.ShiftedItems):
    """Takes the place of an item in the minibatch for its row, in the story and where the algorithms read it."""

    def prior_of_items(self, m, above=None, items=None):
        return super().prior_of_items(m, above, torch.arange(len(m)))


class AmongOthers(CVAE):
    """v around z less what the items beside it have on average."""

    def prior_of_items(self, m, above=None, items=None):
        return super().prior_of_items(m - m.mean(0) / 2)


class OwnPlate(PMF):
    """Takes the minibatch for the catalogue."""

    def forward(self, batch):
        with pyro.plate("users", self.n_users):
            u = self.factors_of_users()
        with pyro.plate("items", len(batch.items)):
            v = self.factors_of_items(self.item_prior(batch), batch)
            self.ratings_of(u, v, batch)


PLANTED = {
    ByPlace: "says of some items what it does not say of them among all",
    AmongOthers: "does not move one to one with m",
    OwnPlate: "has a plate items of",
}


@pytest.mark.parametrize("cls", PLANTED)
def test_an_item_is_known_by_its_row(cls):
    with pytest.raises(InputError, match=f"the story of {cls.__name__} .*{PLANTED[cls]}"):
        check_story(made(cls), observations(cls.has_content))
    with pytest.raises(AssertionError, match=PLANTED[cls]):
        check_model(cls)


PASSED_OVER = {
    own_models.Told: "observes features, a site or factor that no algorithm reads",
    own_models.Shrunk: "observes sparse, a site or factor",
    own_models.Parametric: "has the parameter slope, which is none of its module",
    own_models.ToldAbove: "observes seen, a site or factor",
    own_models.Weighted: "scales R by more than its plate does",
    own_models.Masked: "masks u",
    own_models.Busy: "has a prior of u whose precision is no number",
}


@pytest.mark.parametrize("cls", PASSED_OVER)
def test_what_no_algorithm_would_read_is_refused(cls):
    with pytest.raises(AssertionError, match=f"the story of {cls.__name__} {PASSED_OVER[cls]}"):
        check_model(cls)


@pytest.mark.parametrize("cls", [own_models.Recorded, own_models.Regressed])
def test_what_says_nothing_more_or_is_learned_is_taken(cls):
    model = made(cls)
    check_story(model, observations(False))
    assert list(model.further_parameters) == ["w"] * (cls is own_models.Regressed)


class LaterItems(PMF):
    """A story of its own from the seventh item."""

    def factors_of_items(self, m, batch, above=NOTHING):
        return super().factors_of_items(m + (batch.items[:, None] >= 6).to(m), batch, above)


def test_the_kit_looks_at_all_items_too():
    with pytest.raises(AssertionError, match="draws v from another prior than prior_of_items"):
        check_model(LaterItems)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ratings", ["confidence-normal", "normal", "bernoulli", "bernoulli-bound", "poisson"])
@pytest.mark.parametrize("changes", [{}, {"biases": "on"}, {"parametrization": "non-centred"}], ids=str)
def test_right_stories_are_taken(dtype, ratings, changes):
    model = made(CVAE, rating_likelihood=ratings, **changes).to(dtype)
    check_story(model, observations(True).to(dtype=dtype))


def test_the_fit_goes_on_as_if_nobody_had_asked():
    model = made(CVAE).train()
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    check_story(model, observations(True))
    assert torch.equal(torch.rand(2), wanted) and model.training and model.item_prior.decoder.training


# --- what is looked at -----------------------------------------------------------------------------------------------


def sizes_of(parts):
    return [len(items) for items, _ in parts]


def test_all_items_are_looked_at_in_parts_from_all_over_and_at_once():
    ours = columns()
    *parts, (whole, _) = looked_at(ours, dense=True)
    assert sizes_of(parts) == [75, 75] and all(rated for _, rated in parts)
    assert torch.equal(torch.cat([items for items, _ in parts]).sort().values, torch.arange(N_ITEMS))
    assert torch.equal(whole.sort().values, torch.arange(N_ITEMS))
    for items, _ in parts:
        rows = items.sort().values
        assert float((rows == torch.arange(len(rows))).double().mean()) < 0.1
        counts = ours.indptr.diff()[items]
        assert int(counts.min()) == 0 and int(counts.max()) >= int(ours.indptr.diff().max()) - 1
    again = looked_at(ours, dense=True)
    assert all(torch.equal(one, other) for (one, _), (other, _) in zip(parts, again, strict=False))


def test_of_many_items_as_many_as_are_affordable_are_looked_at(monkeypatch):
    monkeypatch.setattr(story, "MOST_ITEMS", 60)
    monkeypatch.setattr(story, "AT_ONCE", 25)
    ours = columns()
    parts = looked_at(ours, dense=False)
    assert sizes_of(parts) == [20, 20, 20] and all(rated for _, rated in parts)
    chosen = torch.cat([items for items, _ in parts])
    assert len(chosen.unique()) == 60
    counts, theirs = ours.indptr.diff().sort().values, ours.indptr.diff()[chosen].sort().values
    assert torch.equal(theirs[[0, -1]], counts[[0, -1]])
    quantiles = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert float((theirs.double().quantile(quantiles) - counts.double().quantile(quantiles)).abs().max()) <= 1


def test_ratings_are_looked_at_in_a_sample_where_all_would_cost_too_much(monkeypatch):
    monkeypatch.setattr(story, "MOST_CELLS", 120)
    monkeypatch.setattr(story, "CELLS_AT_ONCE", 50)
    ours = columns()
    counts = ours.indptr.diff()
    for dense, cost in ((False, counts.double()), (True, counts + N_USERS / 8)):
        parts = looked_at(ours, dense)
        unrated, rated = ([items for items, looked in parts if looked == kind] for kind in (False, True))
        assert torch.equal(torch.cat(unrated).sort().values, torch.arange(N_ITEMS))
        sample = torch.cat(rated)
        assert 0.8 * 120 < float(cost[sample].sum()) < 1.2 * 120 and float(cost.sum()) > 3 * 120
        assert int(counts[sample].min()) == 0 and int(counts[sample].max()) == int(counts.max())
        assert max(int(counts[items].sum()) for items in rated) < 1.2 * 50
    with pytest.raises(InputError, match="observes R from another distribution"):
        check_story(made(WrongRatings, WHERE["many ratings"]), observations(False))
    with pytest.raises(InputError, match="draws v from another prior"):
        check_story(made(WrongItemsPMF, WHERE["one item"]), observations(False))


@pytest.mark.parametrize("n_items", [1, 2, 3])
def test_small_catalogues_are_looked_at(n_items):
    few = columns().select(torch.arange(n_items))
    parts = looked_at(few, dense=False)
    assert min(sizes_of(parts)) >= 1 and set(torch.cat([items for items, _ in parts]).tolist()) == set(range(n_items))
