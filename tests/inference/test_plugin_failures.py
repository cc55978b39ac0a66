"""A plug-in that raises inside its own methods: commands say whose method it was, in one line with exit code 2."""

from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

import inference
from inference.fit_command import fit_and_report
from inference.options import Options
from inference.serving.app import create_app
from models.contents.multinomial import Multinomial
from models.networks import NetworkPair
from models.pmf import PMF
from pyro_cvae.data.simulated import simulated_stars
from pyro_cvae.errors import run_command
from tests.models.plugged_ratings import OwnNoise
from tests.strangers import SMALL, arguments, catalogue, command

FAILS = {"when": ""}
"""Of which method the classes below fail: they are opened whole, and fail later."""


def fails(method):
    """Raise where the caller's method was told to fail."""
    if FAILS["when"] == method:
        raise IndexError(f"nothing at 7 in {method}")


class Stars(OwnNoise):
    """The package's own, but where it fails."""

    def cell(self, score, confidence):
        fails("cell")
        return super().cell(score, confidence)

    def site(self, columns, second=None):
        fails("site")
        return super().site(columns, second)

    def expected_log_prob(self, moments, columns):
        fails("expected_log_prob")
        return super().expected_log_prob(moments, columns)

    def predict(self, mean, variance):
        fails("predict")
        return super().predict(mean, variance)


class Words(Multinomial):
    """Likewise."""

    def log_prob(self, *args, **more):
        fails("log_prob")
        return super().log_prob(*args, **more)

    def check(self, obs):
        fails("check")
        super().check(obs)


class Pair(NetworkPair):
    """Likewise, of networks."""

    reads = ("words",)

    def make(self, form, heads, options):
        fails("make")


class Groups(PMF):
    """Likewise, of a model."""

    def forward(self, batch):
        fails("forward")
        super().forward(batch)

    def prior_of_users(self, above):
        fails("prior_of_users")
        prior = super().prior_of_users(above)
        return replace(prior, loc=prior.loc.expand(self.n_users, -1))

    def prior_of_new_users(self, ids, above):
        fails("prior_of_new_users")
        return super().prior_of_users(above)


STARS = {"data": "simulated-stars", "model": "pmf", "split": "cells", "lambda_u": 20.0, "lambda_v": 10.0}
QUICK = {"factors": 2, "threads": 1, "quiet": True}
CASES = [
    ("rating_likelihood", Stars, "cell", "svi"),
    ("rating_likelihood", Stars, "site", "coordinate"),
    ("rating_likelihood", Stars, "site", "mcmc"),
    ("rating_likelihood", Stars, "expected_log_prob", "coordinate"),
    ("rating_likelihood", Stars, "predict", "coordinate"),
    ("content_likelihood", Words, "check", "coordinate"),
    ("content_likelihood", Words, "log_prob", "svi"),
    ("network", Pair, "make", "svi"),
    ("model", Groups, "forward", "mcmc"),
    ("model", Groups, "prior_of_users", "coordinate"),
]


@pytest.fixture(autouse=True)
def nothing_fails(monkeypatch):
    monkeypatch.setitem(FAILS, "when", "")
    monkeypatch.delenv("PYRO_CVAE_DEBUG", raising=False)


def line_of(cls, method):
    where = f"{cls.__module__}.{cls.__name__}.{method}"
    return (
        f"error: {where} failed: IndexError: nothing at 7 in {method}; mend it; PYRO_CVAE_DEBUG=1 shows the traceback"
    )


@pytest.mark.parametrize(("field", "cls", "method", "algorithm"), CASES)
def test_a_fit_names_the_method_that_failed(field, cls, method, algorithm, tmp_path, capsys, monkeypatch):
    options = QUICK | {field: f"{__name__}.{cls.__name__}", "out": str(tmp_path / "run")}
    options |= STARS if field == "rating_likelihood" else {"data": "simulated"}
    options |= {"biases": "off", "draws": 4, "warmup": 2, "chains": 2} if algorithm == "mcmc" else {"epochs": 1}
    if field in ("content_likelihood", "network"):
        options |= {"hidden": (4,), "pretrain_epochs": 1}
    FAILS["when"] = method
    given = Options.of(algorithm, **options)
    assert run_command(lambda: fit_and_report(given)) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == line_of(cls, method)
    monkeypatch.setenv("PYRO_CVAE_DEBUG", "1")
    with pytest.raises(IndexError, match="nothing at 7"):
        run_command(lambda: fit_and_report(replace(given, run=replace(given.run, overwrite=True))))


@pytest.mark.parametrize(
    ("door", "method"),
    [
        ("inference.evaluate", "predict"),
        ("analysis.diagnostics", "cell"),
        ("analysis.compare", "predict"),
    ],
)
def test_so_does_a_command_on_a_run(door, method, tmp_path, stars_run):
    FAILS["when"] = method
    trust = ["--trust", f"{__name__}.Stars"]
    code, _, err = command(door, [*arguments(door, stars_run, tmp_path), *trust])
    assert (code, err.strip().splitlines()[-1]) == (2, line_of(Stars, method))


@pytest.fixture(scope="module")
def stars_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "stars"
    inference.fit(
        simulated_stars(n_users=14, n_items=18, n_words=30, n_factors=2), method="coordinate", mode="bayes",
        rating_likelihood=f"{__name__}.Stars", out=str(path), **SMALL | STARS,
    )  # fmt: skip
    return path


def test_so_does_a_list_of_somebody_new(tmp_path):
    path = tmp_path / "run"
    data = catalogue()
    fit = inference.fit(data, method="coordinate", mode="map", model=f"{__name__}.Groups", factors=2, out=str(path))
    assert fit.path is not None
    FAILS["when"] = "prior_of_new_users"
    trust = ["--trust", f"{__name__}.Groups"]
    code, _, err = command("inference.recommend", [str(path), "--likes", "i1", "i2", *trust])
    assert (code, err.strip().splitlines()[-1]) == (2, line_of(Groups, "prior_of_new_users"))


def test_a_service_says_that_it_failed_and_not_that_the_question_is_wrong(tmp_path):
    fit = inference.fit(catalogue(), method="coordinate", mode="map", model=f"{__name__}.Groups", factors=2)
    FAILS["when"] = "prior_of_new_users"
    with TestClient(create_app(fit), raise_server_exceptions=False) as client:
        answer = client.post("/fold-in", json={"items": ["i1", "i2"]})
    assert (answer.status_code, answer.json()["error"][:18]) == (500, "the service failed")
