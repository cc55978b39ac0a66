"""What goes with what, by names alone: refusals that come before torch does."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import inference
from inference.options import Options
from pyro_cvae.data.contents import Images, Tokens
from pyro_cvae.data.simulated import simulated
from pyro_cvae.errors import InputError

ROOT = Path(__file__).parents[2]


def svi(flags, folder):
    """The command in a process of its own, which says at its end whether torch was imported."""
    code = (
        "import sys, runpy; sys.argv = ['svi', *sys.argv[1:]]\n"
        "try: runpy.run_module('inference.svi', run_name='__main__')\n"
        "except SystemExit as end: print('torch' in sys.modules); raise"
    )
    command, environment = [sys.executable, "-c", code, *flags], os.environ | {"PYTHONPATH": os.fspath(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


PARTS = {"titles": "tokens", "tags": "bernoulli"}
REFUSED = [
    ({"network": "transformer"}, "--network is 'transformer', but it must be one of auto, mlp, "),
    (
        {"content_likelihood": "tokens", "network": "mlp"},
        "'mlp', which does not read tokens; use auto or convolutional, recurrent",
    ),
    ({"network": "recurrent"}, "'recurrent', which does not read words, vectors, images; use auto or mlp, convolut"),
    ({"network": "convolutional", "start": "svd"}, "which convolutional networks of images do not know; use w"),
    (
        {"content_likelihood": "normal", "network": "convolutional", "start": "svd"},
        "networks of images do not know; use whitened or --network mlp",
    ),
    ({"content_likelihood": "product"}, "'product', but it has no parts; give each content its likelihood"),
    (
        {"content_likelihood": "product", "content_likelihood_args": PARTS, "content": "tags"},
        "--content is 'tags', but the parts of a product name its contents",
    ),
    (
        {"content_likelihood": "product", "content_likelihood_args": PARTS | {"more": "nonsense"}},
        "unknown content likelihood 'nonsense'; use a class path or multinomial, ",
    ),
    ({"content_likelihood": "nonsense"}, "unknown content likelihood 'nonsense'"),
    ({"part_dropout": 1.0}, "--part-dropout is 1.0, but it must be at least 0 and below 1"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_what_cannot_work_is_refused_by_its_names(options, words):
    with pytest.raises(InputError) as error:
        Options.of("svi", **{"hidden": (200,)} | options)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"content_likelihood": "tokens", "network": "recurrent"},
        {"content_likelihood": "tokens"},
        {"content_likelihood": "normal", "network": "convolutional"},
        {"content_likelihood": "tokens", "network": "convolutional"},
        {"content_likelihood": "tokens", "network": "convolutional", "start": "svd", "hidden": (50,)},
        {"content_likelihood": "product", "content_likelihood_args": PARTS, "network": "convolutional"},
        {"content_likelihood": "product", "content_likelihood_args": PARTS, "network": "recurrent"},
        {"content_likelihood": "my_module.Mine", "network": "recurrent"},
    ],
)
def test_what_may_work_is_left_to_the_classes(options):
    Options.of("svi", **options)


def test_a_start_that_the_network_knows_of_some_kinds_alone_is_looked_at_when_the_data_are_known():
    values = {"content_likelihood": "auto", "network": "convolutional", "start": "svd", "hidden": (50,)}
    options, every = Options.of("svi", **values), np.ones(4, bool)
    titles = Tokens.fit(["one two", "two three", "three", ""])
    pictures = Images(np.zeros((4, 1, 4, 4), np.uint8), every)
    assert options.for_contents({"titles": titles}).model.content_likelihood == "tokens"
    for contents in ({"pictures": pictures}, {"titles": titles, "pictures": pictures}):
        with pytest.raises(
            InputError, match=r"convolutional networks of images do not know; use whitened or --network mlp"
        ):
            options.for_contents(contents)
        Options.of("svi", **values | {"start": "whitened"}).for_contents(contents)


@pytest.mark.parametrize(
    "flags",
    [
        ["--content-likelihood", "tokens", "--network", "mlp"],
        ["--content-likelihood", "product"],
        ["--content-likelihood", "product", "--content-likelihood.titles", "tokens", "--network", "mlp"],
        ["--network", "convolutional", "--start", "svd"],
    ],
)
def test_the_commands_refuse_it_in_one_line_without_torch(flags):
    done = svi(flags, ROOT)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert (done.stderr.count("\n") == 1 and "use " in done.stderr) or "give " in done.stderr


OF_DATA = [
    (
        ["--network", "convolutional"],
        "the network convolutional cannot read words, only images, tokens; use --network auto",
    ),
    (
        ["--content-likelihood", "tokens"],
        "tokens is no likelihood of words, which the content text is; use multi",
    ),
    (["--content", "tags"], "the items have no content called 'tags'; use text, or fit with --contents tags=PATH"),
    (["--content-likelihood", "product", "--content-likelihood.tags", "bernoulli"], "no content called 'tags'"),
]


@pytest.mark.parametrize(("flags", "problem"), OF_DATA)
def test_what_the_data_do_not_have_is_refused_before_torch_and_leaves_nothing(flags, problem, tmp_path):
    done = svi(flags, tmp_path)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert done.stderr.count("\n") == 1 and problem in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("flags", "problem"), OF_DATA[:3])
def test_the_same_from_python(flags, problem, tmp_path):
    options = {flags[0][2:].replace("-", "_"): flags[1]}
    with pytest.raises(InputError, match=problem.split(";")[0]):
        inference.fit(simulated(n_users=20, n_items=30, n_words=20, n_factors=2), out=tmp_path / "run", **options)
    assert not list(tmp_path.iterdir())
