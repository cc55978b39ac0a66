"""Likelihoods that are chosen by the kinds of the contents: one preset for one content and for several."""

import numpy as np
import pytest

import inference
from benchmarks.floors import short_words_and_tags
from inference.commands import parse
from inference.compatibility import BY_KIND, choose
from inference.options import METHODS, Options
from models.contents.making import content_class
from pyro_cvae.data.contents import Images, Tokens, Vectors
from pyro_cvae.errors import InputError
from pyro_cvae.runs import open_run

N_ITEMS = 600
BEST = {"words": "pseudo-multinomial", "words.subsample": 1500}


def read(*argv):
    parts = parse("python -m x", "X.", Options.classes("coordinate"), argv, preset_classes=tuple(METHODS.values()))
    return Options(*parts).model.content_likelihood, Options(*parts).model.content_likelihood_args


@pytest.fixture(scope="module")
def dataset():
    return short_words_and_tags()


def test_the_best_preset_takes_two_contents_and_keeps_both_alive(dataset):
    """Of 200 units three seeds had 200 active, and 75 to 88 where the mean of the product shrank."""
    options = {"factors": 200, "hidden": (200,), "batch_size": 32, "sweeps": 1, "threads": 1}
    fit = inference.fit(dataset, method="coordinate", mode="map", preset="best", **options)
    model = fit.options.model
    assert model.content_likelihood == "product" and model.content_likelihood_args == {
        **{"text": "pseudo-multinomial", "text.subsample": 1500},
        **{"tags": "pseudo-multinomial", "tags.subsample": 1500},
    }
    assert fit.metrics["content"]["active_units"] > 150
    lengths = fit.posterior.z_loc.norm(dim=1)
    some = dataset.content.counts.sum(1).A1.astype(bool) | dataset.others["tags"].present
    assert np.allclose(lengths[some], 9, atol=1e-3), "the mean has the radius, whatever an item has"


def test_one_content_is_its_own_likelihood_and_one_by_name_is_that_alone(dataset):
    likelihood, arguments = choose({"text": dataset.content}, BEST, "")
    assert (likelihood, arguments) == ("pseudo-multinomial", {"subsample": 1500})
    assert choose(dataset.contents, BEST, "tags") == (likelihood, arguments)
    with pytest.raises(InputError, match="no content called 'sounds'"):
        choose(dataset.contents, BEST, "sounds")


def test_each_kind_has_a_likelihood_that_reads_it(dataset):
    every = np.ones(N_ITEMS, bool)
    vectors = Vectors(np.ones((N_ITEMS, 2), np.float32), every)
    images = Images(np.zeros((N_ITEMS, 1, 4, 4), np.uint8), every)
    tokens = Tokens(np.arange(N_ITEMS + 1), np.zeros(N_ITEMS, np.int32), ("?",), every)
    there = {"text": dataset.content, "vec": vectors, "pic": images, "said": tokens}
    likelihood, arguments = choose(there, BEST, "")
    assert likelihood == "product" and arguments == {
        **{"text": "pseudo-multinomial", "text.subsample": 1500, "vec": "normal", "vec.learned": True},
        **{"pic": "normal", "pic.learned": True, "said": "tokens"},
    }
    for kind in ("words", "tokens", "images", "vectors"):
        assert kind in content_class(BY_KIND[kind]).reads


def test_arguments_by_kind_on_the_command_line_and_over_a_preset(tmp_path):
    assert read("--preset", "best") == ("auto", BEST)
    fewer = read("--preset", "best", "--content-likelihood.subsample", "30")
    assert fewer == ("auto", BEST | {"words.subsample": 30})
    other = read(
        "--preset", "best", "--content-likelihood.words", "bernoulli", "--content-likelihood.words.subsample", "9"
    )
    assert other == ("auto", {"words": "bernoulli", "words.subsample": 9})
    assert read("--preset", "best", "--content-likelihood", "multinomial") == ("multinomial", {})
    path = tmp_path / "own.yaml"
    path.write_text("content_likelihood_args: {images: pseudo-bernoulli}\n")
    assert read("--preset", "best", "--config", str(path)) == ("auto", BEST | {"images": "pseudo-bernoulli"})
    for flags, words in (
        (["--content-likelihood.words", "product"], "--content-likelihood.words is 'product'"),
        (["--content-likelihood.words.rate", "3"], "unknown option --content-likelihood.words.rate"),
        (["--content-likelihood.images", "nonsense"], "unknown content likelihood 'nonsense'"),
    ):
        with pytest.raises(InputError, match=words):
            read("--content-likelihood", "auto", *flags)


def test_from_python_arguments_go_over_those_of_the_preset(dataset):
    small = {"factors": 3, "hidden": (8,), "pretrain_epochs": 1, "sweeps": 1, "threads": 1, "content": "tags"}
    fit = inference.fit(
        dataset, method="coordinate", mode="map", preset="best", content_likelihood_args={"subsample": 7}, **small
    )
    assert fit.options.model.content_likelihood == "pseudo-multinomial"
    assert fit.options.model.content_likelihood_args == {"subsample": 7}


def test_an_old_run_of_a_product_encodes_as_it_did(dataset, tmp_path):
    """At first the experts alone had the radius, then the product too: old configurations say nothing of it."""
    parts = {"text": "multinomial", "tags": "multinomial"}
    small = {"factors": 3, "hidden": (8,), "pretrain_epochs": 1, "epochs": 1, "sweeps": 1, "threads": 1, "radius": 2.0}
    inference.fit(
        dataset, method="coordinate", mode="map", content_likelihood="product", content_likelihood_args=parts,
        out=tmp_path / "run", **small,
    )  # fmt: skip
    run = open_run(tmp_path / "run")
    new = inference.load(run).model.encoder
    assert new.radius == 2.0 and all(expert.radius == 0.0 for expert in new.experts.values())
    del run.config["free_experts"]
    second = inference.load(run).model.encoder
    assert second.radius == 2.0 and all(expert.radius == 2.0 for expert in second.experts.values())
    del run.config["product_radius"]
    old = inference.load(run).model.encoder
    assert old.radius == 0.0 and all(expert.radius == 2.0 for expert in old.experts.values())
