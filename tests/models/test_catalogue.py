"""The catalogue of plug-ins, held to the classes that it names."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import models
from models import contents, networks, ratings
from models.build import make_model
from models.catalogue import CONTENTS, MODELS, NETWORKS, NUMBERS, PLUGINS, RATINGS
from models.contents.making import content_class, content_likelihood
from models.making import base_of, class_of, path_of
from models.networks import Encoder
from models.networks.making import pair_class
from models.observations import Observations
from models.rows import DenseRows, Form, SparseRows, TokenRows
from models.starting import start_alive
from pyro_cvae.errors import InputError
from tests.models.toy import N_ITEMS, N_USERS, ToyOptions, toy_columns

ROOT = Path(__file__).parents[2]
NAMED = [(field, name) for field, plugin in PLUGINS.items() for name in plugin.own]
ROOMS = {"model": models, "content_likelihood": contents, "network": networks, "rating_likelihood": ratings}


@pytest.mark.parametrize(("field", "name"), NAMED)
def test_a_name_leads_to_its_class_and_back(field, name):
    cls = class_of(field, name)
    assert issubclass(cls, base_of(field)) and cls is not base_of(field)
    assert path_of(field, cls) == name


@pytest.mark.parametrize("field", PLUGINS)
def test_every_class_of_the_package_is_in_the_catalogue(field):
    found = set()
    for module in pkgutil.iter_modules(ROOMS[field].__path__, f"{ROOMS[field].__name__}."):
        for _, one in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(one, base_of(field)) and one is not base_of(field):
                found.add(f"{one.__module__}:{one.__qualname__}")
    assert found == {facts.path for facts in PLUGINS[field].own.values()}


def test_what_is_said_of_models_is_so():
    assert {name: facts.has_content for name, facts in MODELS.items()} == {
        name: class_of("model", name).has_content for name in MODELS
    }


@pytest.mark.parametrize("name", CONTENTS)
def test_what_is_said_of_a_likelihood_of_content_is_so(name):
    facts, cls = CONTENTS[name], content_class(name)
    if name != "product":
        assert (facts.reads, facts.pseudo) == (cls.reads, cls.pseudo)
        return
    kinds = {kind for own, part in CONTENTS.items() if own != name for kind in part.reads}
    assert set(facts.reads) == kinds and not facts.pseudo


@pytest.mark.parametrize("name", RATINGS)
def test_what_is_said_of_a_likelihood_of_ratings_is_so(name):
    facts, cls = RATINGS[name], class_of("rating_likelihood", name)
    assert (facts.conjugate, facts.exact, facts.explicit) == (cls.conjugate, cls.exact, cls.explicit)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_said_of_a_pair_of_networks_is_so(name):
    facts, pair = NETWORKS[name], pair_class(name)
    module = importlib.import_module(pair.__module__)
    encoders = {one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Encoder)}
    assert pair.reads == facts.reads and set(facts.without_svd) <= set(pair.reads)
    assert {kind for one in encoders - {Encoder} for kind in one.reads} == set(facts.reads)


def test_the_default_network_of_each_kind():
    last = {kind: name for name, facts in NETWORKS.items() for kind in facts.reads}
    assert last == {"words": "mlp", "vectors": "mlp", "images": "convolutional", "tokens": "recurrent"}


STARTED = {
    "words": (Form("words", (9,)), SparseRows.from_dense(torch.eye(9)[torch.arange(N_ITEMS) % 9]), "multinomial"),
    "vectors": (Form("vectors", (8,)), DenseRows(torch.eye(8)[torch.arange(N_ITEMS) % 8]), "normal"),
    "images": (Form("images", (1, 8, 8)), DenseRows(torch.eye(64)[:N_ITEMS].unflatten(1, (1, 8, 8))), "normal"),
    "tokens": (
        Form("tokens", (9,)),
        TokenRows(4 * torch.arange(N_ITEMS + 1), torch.arange(4 * N_ITEMS) ** 2 % 9, 9),
        "tokens",
    ),
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, facts in NETWORKS.items() for kind in facts.reads])
def test_a_pair_starts_otherwise_by_svd_where_it_is_said_to(name, kind):
    form, rows, likelihood = STARTED[kind]
    started = []
    for how in ("whitened", "svd"):
        torch.manual_seed(0)
        model = make_model(N_USERS, N_ITEMS, form, content_likelihood(likelihood, {}), ToyOptions(network=name))
        start_alive(model, Observations(rows, rows, toy_columns()), how)
        started.append(torch.cat([one.detach().flatten() for one in model.parameters()]))
    assert torch.equal(*started) == (kind in NETWORKS[name].without_svd)


def test_kinds_of_numbers_are_what_a_likelihood_reads_by_default():
    assert base_of("content_likelihood").reads == NUMBERS


def test_a_class_of_another_kind_is_refused():
    with pytest.raises(InputError, match=r"CVAE is no NetworkPair; derive it from models\.networks\.NetworkPair"):
        path_of("network", class_of("model", "cvae"))
    with pytest.raises(InputError, match=r"models\.pmf\.PMF is no RatingLikelihood"):
        class_of("rating_likelihood", "models.pmf.PMF")


def test_the_catalogue_is_light():
    code = "import sys, models, models.catalogue; print(*{'torch', 'pyro', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
