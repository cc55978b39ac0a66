"""The document from which right requests to a service are made."""

import copy

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

import inference
from benchmarks.study.narrowed import narrowed
from inference.serving import create_app
from pyro_cvae.data.simulated import simulated

IDS = {"user": ["user-1", "user-2"], "item": ["item-1", "item-2", "item-3"], "word": ["sail", "oven"]}
USER, ITEMS = "user-1", ["item-1", "item-3"]


@pytest.fixture(scope="module")
def published():
    fit = inference.fit(
        simulated(n_users=12, n_items=15, n_words=10, n_factors=2),
        method="coordinate",
        mode="map",
        factors=2,
        hidden=[4],
        epochs=1,
        pretrain_epochs=1,
        split="none",
    )
    return TestClient(create_app(fit)).get("/openapi.json").json()


def takes(document, name):
    """A predicate on bodies: whether the document takes them as requests of that name."""
    schema = {"$ref": f"#/components/schemas/{name}"} | {"components": document["components"]}
    return Draft202012Validator(schema).is_valid


def test_ids_are_those_of_the_run(published):
    document = narrowed(published, IDS, uncertain=True, explicit=False)
    users, items, texts = (takes(document, f"{name}Asked") for name in ("SimilarUsers", "Recommend", "NewItem"))
    assert users({"user": USER, "exclude": ["user-2"]}) and not users({"user": USER, "exclude": ITEMS})
    assert items({"user": USER, "exclude": ITEMS, "candidates": None}) and not items({"user": "x"})
    assert not items({"user": USER, "exclude": ["item-4"]}) and not items({"user": 3})
    assert texts({"text": "anything", "users": [USER]}) and not texts({"text": "sail", "users": ["x"]})


@pytest.mark.parametrize("explicit", [False, True])
def test_items_have_ratings_where_the_run_is_of_ratings(published, explicit):
    document = narrowed(published, IDS, uncertain=False, explicit=explicit)
    for name, asked in (("FoldIn", lambda body: body), ("Why", lambda body: {"liked": body})):
        right = takes(document, f"{name}Asked")
        assert right(asked({"items": ITEMS})) == (not explicit)
        assert right(asked({"items": ITEMS, "ratings": [5, 1]})) == explicit
        assert not right(asked({"items": ITEMS, "ratings": [5]}))


def test_a_point_has_no_interval(published):
    for uncertain in (False, True):
        right = takes(narrowed(published, IDS, uncertain, explicit=False), "RecommendAsked")
        assert right({"user": USER}) and right({"user": USER, "interval": 0.5, "top_probability": 3}) == uncertain


def test_reasons_are_of_a_user_or_of_what_one_has_liked(published):
    right = takes(narrowed(published, IDS, uncertain=True, explicit=False), "WhyAsked")
    assert right({"user": USER, "items": ITEMS}) and right({"liked": {"items": ITEMS}})
    assert not right({"items": ITEMS}) and not right({"user": None}) and not right({"liked": None})
    assert not right({"user": USER, "liked": {"items": ITEMS}})


def test_bounds_are_in_the_document(published):
    right = takes(published, "WhyAsked")
    assert right({"user": 1, "top": 50, "reasons": 100}) and right({"user": 1.0, "top": 1.0})
    wrong = {"top": (0, 51, 1.5), "reasons": (0, 101), "user": (2**63, -(2**63) - 1)}
    assert not any(right({"user": 1, field: value}) for field, values in wrong.items() for value in values)


def test_the_published_document_stays_as_it_is(published):
    before = copy.deepcopy(published)
    narrowed(published, IDS, uncertain=False, explicit=True)
    assert published == before
