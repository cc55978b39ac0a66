"""Several contents at once: the product of experts, what a lacking part changes, and what is refused."""

import numpy as np
import pytest
import torch
from scipy import sparse

import inference
from benchmarks.floors import PARTS, vectors_and_tags
from inference.algorithms.elbo import NamedELBO
from inference.algorithms.guides import ContentGuide
from inference.algorithms.networks import drop_parts
from models.build import make_model
from models.contents.bernoulli import Bernoulli
from models.contents.making import described
from models.contents.normal import Normal
from models.contents.product import Product
from models.networks.base import Encoder, NetworkPair, Start
from models.networks.mlp_pair import MLPPair
from models.networks.product import ProductEncoder
from models.observations import Batch
from models.rows import DenseRows, PartRows, SparseRows
from pyro_cvae.data.content import Content
from pyro_cvae.data.contents import Vectors
from pyro_cvae.data.splits import held_out_items
from pyro_cvae.errors import InputError
from tests.models.toy import N_FACTORS, N_ITEMS, N_USERS, ToyOptions, toy_columns, toy_observations


class Reads(Encoder):
    """An expert that gives what it reads: means and standard deviations side by side."""

    reads = ("vectors",)

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, content):
        return content.dense().chunk(2, -1)


def test_the_product_of_experts_is_the_normalised_product_of_the_densities():
    """One factor on a fine grid: N(z; 0, 1) times the density of each part that is there, its mean and variance."""
    torch.manual_seed(0)
    given = {name: torch.stack([torch.randn(4), 0.2 + torch.rand(4)], -1).double() for name in "abc"}
    present = {"a": torch.tensor([1, 1, 0, 0]), "b": torch.tensor([1, 0, 1, 0]), "c": torch.tensor([1, 0, 0, 0])}
    present = {name: there.bool() for name, there in present.items()}
    parts = {name: DenseRows(value[present[name]], dtype=torch.float64) for name, value in given.items()}
    encoder = ProductEncoder({name: Reads() for name in "abc"}, 1)
    loc, scale = encoder(PartRows(parts, present))
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    for item in range(4):
        log_density = -0.5 * grid**2
        for name in "abc":
            if present[name][item]:
                mean, sd = given[name][item]
                log_density = log_density - 0.5 * ((grid - mean) / sd) ** 2
        p = log_density.exp() / log_density.exp().sum()
        mean = (p * grid).sum()
        torch.testing.assert_close(loc[item, 0], mean, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(scale[item, 0] ** 2, (p * (grid - mean) ** 2).sum(), rtol=1e-8, atol=0)
    assert (loc[3].item(), scale[3].item()) == (0.0, 1.0), "where nothing is there it is the prior exactly"


def toy(**likelihoods):
    """A model of words and tags in float64, and contents of which items lack some; item 1 has none."""
    likelihood = Product(**likelihoods)
    words = toy_observations().content
    tags = SparseRows.from_dense((torch.rand(N_ITEMS, 6) < 0.4).double())
    every = {"words": words, "tags": tags}
    torch.manual_seed(0)
    present = {name: torch.arange(N_ITEMS) % 3 != shift for shift, name in enumerate(likelihoods)}
    present = {name: there & (torch.arange(N_ITEMS) != 1) for name, there in present.items()}
    parts = {name: every[name].select(there.nonzero().squeeze(-1)) for name, there in present.items()}
    rows = PartRows(parts, present)
    torch.manual_seed(0)
    model = make_model(N_USERS, N_ITEMS, rows.form, likelihood, ToyOptions(tied=False)).double()
    return model, rows


def terms(model, rows):
    """Parts of the bound of the content alone, at a fixed draw of z."""
    torch.manual_seed(3)
    batch = Batch(torch.arange(N_ITEMS), rows, rows, toy_columns())
    return NamedELBO().content_terms(model, guide_of(model), batch)


def guide_of(model):
    import pyro
    from pyro.infer.autoguide import AutoGuideList

    plates = lambda batch: [pyro.plate("items", N_ITEMS, subsample=batch.items)]  # noqa: E731
    guide = AutoGuideList(model.content_only, create_plates=plates)
    guide.append(ContentGuide(model))
    return guide


def test_a_part_that_nobody_has_is_a_model_without_it():
    model, rows = toy(words="multinomial", tags="bernoulli")
    nobody = rows.only({"words": torch.ones(N_ITEMS, dtype=torch.bool), "tags": torch.zeros(N_ITEMS, dtype=torch.bool)})
    with_both = terms(model, nobody)
    alone, alone_rows = toy(words="multinomial")
    alone_rows = PartRows({"words": nobody.parts["words"]}, {"words": nobody.present["words"]})
    own = {name: value for name, value in model.state_dict().items() if "tags" not in name}
    alone.load_state_dict(own)
    without = terms(alone, alone_rows)
    for name in ("content", "kl_z"):
        torch.testing.assert_close(with_both[name], without[name], rtol=1e-12, atol=1e-12)
    assert abs(float(terms(model, rows)["content"].detach() - with_both["content"].detach())) > 1


def test_an_item_that_has_nothing_adds_nothing():
    model, rows = toy(words="multinomial", tags="bernoulli")
    loc, scale = model.encoder(rows)
    assert not loc[1].any() and bool((scale[1] == 1).all()) and bool((scale[0] < 1).all())
    z = torch.randn(N_ITEMS, N_FACTORS, dtype=torch.float64)
    assert model.content.conditional(model.decoder, z, rows, sampled=False).log_prob(rows)[1] == 0


def test_drawn_features_of_a_part_are_drawn_in_training_alone():
    model, rows = toy(words="multinomial", tags=Bernoulli(subsample=2))
    z = torch.randn(N_ITEMS, N_FACTORS, dtype=torch.float64)
    exact = model.content.conditional(model.decoder, z, rows, sampled=False).log_prob(rows)
    torch.testing.assert_close(exact, model.content.log_prob(rows, model.decoder.given(z, rows)), rtol=1e-12, atol=0)
    estimates = torch.stack(
        [model.content.conditional(model.decoder, z, rows, sampled=True).log_prob(rows) for _ in range(1000)]
    )
    has_tags = rows.present["tags"]
    assert not torch.equal(estimates[0], estimates[1]) and torch.equal(estimates[0][~has_tags], exact[~has_tags])
    off = (estimates.mean(0) - exact)[has_tags].abs() / (estimates.std(0)[has_tags] / 1000**0.5)
    assert off.max() < 4.5


def test_parts_are_hidden_from_the_encoder_at_the_rate_that_is_asked():
    many = torch.ones(20_000, dtype=torch.bool)
    rows = PartRows({name: DenseRows(torch.zeros(20_000, 1)) for name in "ab"}, {"a": many, "b": many.clone()})
    found = drop_parts(rows, 0.3)
    shares = [float(there.double().mean()) for there in found.present.values()]
    assert all(abs(share - 0.7) < 4 * (0.21 / 20_000) ** 0.5 for share in shares)
    both = float((found.present["a"] & found.present["b"]).double().mean())
    assert abs(both - 0.49) < 4 * (0.49 * 0.51 / 20_000) ** 0.5, "the parts are not dropped apart"
    assert [len(part) for part in found.parts.values()] == [int(there.sum()) for there in found.present.values()]


def test_experts_start_turned_to_one_another(monkeypatch):
    """Two contents that say the same: from the start their means agree, which without the turn they do not."""
    from models import starting
    from models.observations import Observations

    torch.manual_seed(0)
    z = torch.randn(300, 3, dtype=torch.float64)
    views = {name: DenseRows(z @ torch.randn(3, 8, dtype=torch.float64), dtype=torch.float64) for name in "ab"}
    every = torch.ones(300, dtype=torch.bool)
    rows = PartRows(views, {"a": every, "b": every})
    likelihood = Product(a="normal", b="normal")
    model = make_model(N_USERS, 300, rows.form, likelihood, ToyOptions(hidden=(9,), activation="tanh")).double()

    def agreement():
        with torch.no_grad():
            one, two = (model.encoder.experts[name](views[name])[0] for name in "ab")
        return float(torch.nn.functional.cosine_similarity(one, two).mean())

    with monkeypatch.context() as patched:
        patched.setattr(ProductEncoder, "align", lambda *given: None)
        starting.start_alive(model, Observations(rows, rows, toy_columns()))
    apart = agreement()
    with torch.no_grad():
        model.encoder.align(rows)
    assert agreement() > 0.65 > 0.4 > apart


# --- how it is made --------------------------------------------------------------------------------------------------


def test_parts_by_name_path_and_instance_are_described_so_that_they_can_be_made_again():
    made = Product(vec=Normal(2.0, learned=True), tags="models.contents.bernoulli:Bernoulli", words="poisson")
    assert [type(part).__name__ for _, part in made.each()] == ["Normal", "Bernoulli", "Poisson"]
    assert made.param_names == ("vec.loc", "tags.logits", "words.log_rate")
    name, arguments = described(made)
    assert name == "product" and arguments == {
        "vec": "normal",
        "vec.lambda_x": 2.0,
        "vec.learned": True,
        "tags": "models.contents.bernoulli:Bernoulli",
        "words": "poisson",
    }
    again = Product(**arguments)
    assert dict(again.parts["vec"].named_parameters()).keys() == {"log_lambda_x"}
    assert Product(a="bernoulli", b="pseudo-bernoulli").pseudo and not made.pseudo


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({}, "product has no parts"),
        ({"tags.subsample": 3}, "an argument of 'tags', which is no part"),
        ({"tags": "nonsense"}, "unknown content likelihood 'nonsense'"),
        ({"tags": "bernoulli", "tags.rate": 3}, "bernoulli: "),
        ({"tags": Product(a="bernoulli")}, "the part tags of the product is a product itself"),
    ],
)
def test_what_is_no_product(parts, words):
    with pytest.raises(InputError, match=words):
        Product(**parts)


# --- fits ------------------------------------------------------------------------------------------------------------

SMALL = {"factors": 3, "hidden": (20,), "a": 1.0, "b": 0.01, "lambda_u": 1.0, "lambda_v": 10.0, "threads": 1}


@pytest.fixture(scope="module")
def dataset():
    return vectors_and_tags()


@pytest.mark.parametrize("mode", ["map", "bayes"])
def test_each_item_is_told_by_what_it_has(dataset, mode, tmp_path):
    """Also new ones, from a run folder; how well held-out items rank is asked in tests/test_floors.py."""
    split = held_out_items(dataset, 0.25, 0)
    chosen = {"method": "coordinate", "mode": mode, **SMALL, "pretrain_epochs": 3, "epochs": 1}
    fit = inference.fit(
        dataset, split, content_likelihood="product", content_likelihood_args=PARTS, out=tmp_path / "run", **chosen
    )
    alone = inference.fit(dataset, split, content="tags", content_likelihood="bernoulli", **chosen)
    assert type(alone.model.content) is Product, "a content that items lack is a product of one part"
    again = inference.load(tmp_path / "run")
    for name, value in fit.model.named_parameters():
        assert torch.equal(dict(again.model.named_parameters())[name], value)
    assert again.scalings.keys() == {"tags.content", "tags.inputs"}
    rows = np.flatnonzero(dataset.others["vectors"].present & ~dataset.others["tags"].present)[:4]
    new = {"vectors": Vectors(dataset.others["vectors"].values[rows], np.ones(4, bool))}
    loc, scale = again.encode(new)
    torch.testing.assert_close(loc, fit.posterior.z_loc[rows], rtol=1e-4, atol=1e-5)
    nothing = Content(sparse.csr_matrix((2, 40)), given=np.zeros(2, bool))
    loc, scale = again.encode({"tags": nothing})
    assert not loc.any()
    torch.testing.assert_close(scale, torch.full_like(scale, (1 + 1 / again.posterior.lambda_v) ** 0.5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"content": "vectors", "content_likelihood": "tokens"}, "tokens is no likelihood of vectors"),
        ({"content": "sounds"}, "no content called 'sounds'"),
        ({"content_likelihood": Product(sounds="bernoulli")}, "no content called 'sounds'"),
        ({"content_likelihood": Product(tags="bernoulli"), "content": "vectors"}, "leave it out"),
        ({"content": "vectors", "content_likelihood": "bernoulli"}, "vectors: Bernoulli content must be 0 or 1"),
    ],
)
def test_contents_that_do_not_fit_are_refused(dataset, options, words):
    with pytest.raises(InputError, match=words):
        inference.fit(dataset, **SMALL, **options)


# --- the start in axes of all contents -------------------------------------------------------------------------------


def bags(n_items=300, n_topics=4, lengths=(40, 6), seed=0):
    """Words and tags of the same topics, an item of one topic; every seventh item has no tags."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(n_topics, size=n_items)
    counts = {}
    for name, length, width in zip(("words", "tags"), lengths, (60, 24), strict=True):
        chances = rng.dirichlet(np.full(width, 0.1), n_topics)
        counts[name] = np.stack([rng.multinomial(length, chances[t]) for t in topic]).astype(float)
    present = {"words": np.ones(n_items, bool), "tags": np.arange(n_items) % 7 != 0}
    rows = {name: SparseRows.from_dense(torch.tensor(counts[name][there])) for name, there in present.items()}
    return counts, PartRows(rows, {name: torch.tensor(there) for name, there in present.items()}), topic


def started(rows, likelihood, how="svd", factors=4, **own):
    """A model of these rows whose networks are as they start."""
    options = ToyOptions(tied=False, **own)
    options.factors, options.hidden, options.activation = factors, (factors,), "tanh"
    torch.manual_seed(0)
    model = make_model(5, len(rows), rows.form, likelihood, options).double()
    torch.manual_seed(1)
    model.item_prior.start(Start(rows, rows, likelihood, how))
    return model


def test_the_svd_start_of_a_product_is_that_of_its_contents_side_by_side():
    counts, rows, _ = bags()
    model = started(rows, Product(words="multinomial", tags="multinomial"))
    with torch.no_grad():
        experts = model.item_prior.encoder.experts
        total = experts["words"](rows.parts["words"])[0].clone()
        total[rows.present["tags"]] += experts["tags"](rows.parts["tags"])[0]
    blocks = []
    for name, there in rows.present.items():
        block = counts[name] * there.numpy()[:, None]
        blocks.append(block / np.sqrt((block[there.numpy()] ** 2).sum(1).mean()))
    left, singular, _ = np.linalg.svd(np.hstack(blocks), full_matrices=False)
    expected = (left * singular)[:, :4]
    found = total.numpy() - total.numpy().mean(0)
    expected = expected - expected.mean(0)
    turn = np.linalg.lstsq(found, expected, rcond=None)
    explained = 1 - turn[1].sum() / (expected**2).sum()
    assert explained > 0.98, "up to the activation's bend and rounding of the randomised SVD"
    singular_values = np.linalg.svd(turn[0], compute_uv=False)
    assert singular_values.max() / singular_values.min() < 1.3, "one scale for all axes and both contents"


def test_items_with_other_contents_of_one_topic_lie_together():
    """An item that has tags alone beside those that have words alone, with no training; the mean of ten draws."""
    right = [_of_one_topic(seed) for seed in range(10)]
    assert 0.9 < np.mean(right) < 1, right


def _of_one_topic(seed):
    """Share of the items whose nearest one, of another content, is of their topic."""
    _, rows, topic = bags(seed=seed)
    model = started(rows, Product(words="multinomial", tags="multinomial"), radius=3.0)
    only = {name: torch.zeros(len(rows), dtype=torch.bool) for name in rows.present}
    with torch.no_grad():
        alone = []
        for name in rows.present:
            kept = only | {name: rows.present[name]}
            alone.append(model.item_prior.encoder(rows.only(kept))[0].numpy())
    both = rows.present["tags"].numpy()
    words, tags = (one[both] / np.linalg.norm(one[both], axis=1, keepdims=True) for one in alone)
    nearest = (tags @ words.T - np.eye(len(words)) * 9).argmax(1)
    return (topic[both][nearest] == topic[both]).mean()


class OwnPair(NetworkPair):
    """The package's perceptrons, with a start of its own that knows of no directions."""

    reads = ("words",)

    def make(self, form, heads, options):
        """Both as the package makes them."""
        return MLPPair().make(form, heads, options)


def test_a_pair_that_takes_no_directions_starts_by_itself():
    _, rows, _ = bags()
    model = started(rows, Product(words="multinomial", tags="multinomial"), network=f"{__name__}.OwnPair")
    experts = model.item_prior.encoder.experts.values()
    assert [expert.directions for expert in experts] == [0, 0]
    with torch.no_grad():
        assert all(expert.weights[0].abs().min() > 0 for expert in experts), "at its random start"


def test_a_sample_is_enough_where_dense_contents_are_large(monkeypatch):
    _, rows, topic = bags()
    parts = {"words": rows.parts["words"], "tags": DenseRows(rows.parts["tags"].dense(), dtype=torch.float64)}
    mixed = PartRows(parts, rows.present)
    monkeypatch.setattr("models.networks.joint_start.MOST_NUMBERS", 24 * 150)
    drawn = []
    some = Start.some
    monkeypatch.setattr(Start, "some", lambda self, most=None: drawn.append(most) or some(self, most))
    likelihood = Product(words="multinomial", tags=Normal(1.0))
    options = ToyOptions(tied=False)
    options.factors, options.hidden, options.activation = 4, (4,), "tanh"
    torch.manual_seed(0)
    model = make_model(5, len(mixed), mixed.form, likelihood, options).double()
    model.item_prior.start(Start(mixed, mixed, likelihood, "svd", sample=100))
    assert drawn[0] == 150
    with torch.no_grad():
        loc = model.item_prior.encoder(mixed)[0]
    centres = torch.stack([loc[topic == t].mean(0) for t in range(4)])
    nearest = torch.cdist(loc, centres).argmin(1).numpy()
    assert (nearest == topic).mean() > 0.9


def test_with_a_radius_the_product_has_this_length_and_its_experts_have_their_own():
    _, rows, _ = bags()
    model = started(rows, Product(words="multinomial", tags="multinomial"), radius=3.0)
    with torch.no_grad():
        loc, _ = model.item_prior.encoder(rows)
        alone = model.item_prior.encoder.experts["tags"](rows.parts["tags"])[0].norm(dim=1)
    torch.testing.assert_close(loc.norm(dim=1), torch.full((len(rows),), 3.0, dtype=torch.float64))
    assert alone.std() / alone.mean() > 0.05


def test_balanced_parts_pull_as_hard_as_the_hardest():
    """By brute force: the gradient of the weighted log density of each part at the means, item by item."""
    _, rows, _ = bags(lengths=(400, 3))
    product = Product(words="multinomial", tags="multinomial")
    product.balanced = True
    model = started(rows, product)
    plain = started(rows, Product(words="multinomial", tags="multinomial"))
    pulls = {}
    for name, one in (("balanced", model), ("plain", plain)):
        z = one.item_prior.encoder(rows)[0].detach()
        for place, part in enumerate(("words", "tags")):
            squares = []
            kept = {other: rows.present[other] & (other == part) for other in rows.present}
            for item in rows.items(part)[:200].tolist():
                own = rows.select(torch.tensor([item])).only({o: k[[item]] for o, k in kept.items()})
                at = z[[item]].clone().requires_grad_()
                density = one.item_prior.content.conditional(one.item_prior.decoder, at, own, False).log_prob(own)
                squares.append(torch.autograd.grad(density.sum(), at)[0].square().sum())
            pulls[name, place] = torch.stack(squares).mean().sqrt().item()
    assert pulls["plain", 0] > 3 * pulls["plain", 1], "a long text drowns three tags"
    assert pulls["balanced", 0] == pytest.approx(pulls["balanced", 1], rel=0.1)
    assert pulls["balanced", 0] == pytest.approx(pulls["plain", 0], rel=0.1)


def test_a_balanced_product_is_told_apart_and_survives_its_run_folder(tmp_path):
    data = vectors_and_tags()
    options = {"method": "coordinate", "mode": "map", "factors": 3, "hidden": (6,), "pretrain_epochs": 2, "epochs": 0}
    of_both = options | {"content_likelihood": Product(**PARTS), "train_per_user": 3}
    fit = inference.fit(data, **of_both, balance=True, out=tmp_path / "run")
    weights = fit.model.content.weights
    assert weights.shape == (2,) and weights.min() > 0 and weights.max() / weights.min() > 1.2
    assert fit.model.pseudo and not inference.fit(data, **of_both).model.pseudo
    again = inference.load(tmp_path / "run")
    assert torch.equal(again.model.content.weights, weights) and again.model.pseudo
    assert inference.fit(data, **of_both).model.content.weights is None
    alone = options | {"content": "tags", "content_likelihood": "bernoulli", "train_per_user": 3}
    one, other = (inference.fit(data, **alone, balance=given).posterior for given in (True, False))
    assert torch.equal(one.z_loc, other.z_loc) and torch.equal(one.u_loc, other.u_loc)
