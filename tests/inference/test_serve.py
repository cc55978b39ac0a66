"""The service: answers are what the recommending room gives, whatever is sent; the token, reloading, the command."""

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
import uvicorn
from fastapi.testclient import TestClient

import inference
from inference.recommending import add_items, fold_in, recommend, similar_items, similar_users, why
from inference.serve import listening, main, read_token
from inference.serving import app as app_module
from inference.serving import check_installed, create_app
from inference.serving.asked import MOST_TEXT
from inference.serving.guard import MOST_BYTES, Guard, is_loopback
from inference.serving.metrics import Metrics
from inference.serving.warm import Warm, Watch
from pyro_cvae.data.frames import from_frames
from pyro_cvae.errors import InputError, MachineError

ROOT = Path(__file__).parents[2]
N_USERS, N_ITEMS, TOKEN = 12, 30, "0123456789abcdef-token"
WORDS = ("comet", "nebula", "sail", "mast", "oven", "pastry", "lemma", "proof")
SMALL = {"factors": 3, "hidden": (6,), "pretrain_epochs": 2, "epochs": 2, "train_per_user": 5, "quiet": True}
SMALL |= {"method": "coordinate", "threads": 1}
HOSTILE = "<img src=x onerror=alert(1)> \u202e\x1b[2J"


def fitted(whole=False, stars=False, seed=0, **more):
    rng = np.random.default_rng(0)
    pairs = [(u, int(j)) for u in range(N_USERS) for j in rng.choice(N_ITEMS - 3, 9, replace=False)]
    user_of, item_of = (lambda n: 7 * n, lambda n: -n) if whole else (lambda n: f"用户-{n}", lambda n: f"i{n}")
    table = {"user": [user_of(u) for u, _ in pairs], "item": [item_of(j) for _, j in pairs]}
    if stars:
        table["rating"] = rng.integers(1, 6, len(pairs)).astype(float)
    texts = [" ".join(rng.choice(WORDS, 7)) for _ in range(N_ITEMS)]
    titles = [f"title {j}" for j in range(N_ITEMS)]
    items = {"item": [item_of(j) for j in range(N_ITEMS)], "text": texts, "title": titles}
    dataset = from_frames(table, items, ratings="stars" if stars else "clicks")
    dataset.titles[1] = HOSTILE  # the reader takes markup out of titles, but a run folder may come from anybody
    return inference.fit(dataset, **SMALL | {"seed": seed} | more)


KINDS = {
    "bayes": {},
    "structured": {"guide": "structured"},
    "map": {"mode": "map"},
    "whole": {"whole": True},
    "stars": {"stars": True, "rating_likelihood": "normal"},
    "pmf": {"model": "pmf"},
}


@pytest.fixture(scope="module")
def fits():
    made = {}
    return lambda kind: made[kind] if kind in made else made.setdefault(kind, fitted(**KINDS[kind]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    fitted(out=out)
    return out


def client(fit, peer="testclient", **more):
    return TestClient(create_app(fit, **more), client=(peer, 50000))


def ids(fit):
    users, items = fit.dataset.user_ids.tolist(), fit.dataset.item_ids.tolist()
    return users[2], items


def check_list(told, table):
    """Items of an answer are the rows of a table, number by number."""
    assert [one["item"] for one in told] == table["item"].tolist()
    for one, row in zip(told, table.to_dict("records"), strict=True):
        for name in ("rank", "score", "sd", "low", "high", "rating", "rating_sd", "group", "title"):
            value = row.get(name)
            if value is None or value != value:
                assert name not in one
            else:
                assert one[name] == value
    assert len(told) == len(table) > 0


# --- every answer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_those_of_the_room(fits, kind):
    fit = fits(kind)
    user, items = ids(fit)
    sure = {} if kind == "map" else {"interval": 0.8}
    body = {"user": user, "top": 4, "candidates": items[5:], "exclude": items[9:11]} | sure
    told = client(fit).post("/recommend", json=body)
    assert told.status_code == 200
    table = recommend(fit, [user], 4, candidates=items[5:], exclude=items[9:11], **sure)
    check_list(told.json()["items"], table)
    assert told.json()["user"] == user and told.json()["origin"] == "fit"
    assert ("low" in told.json()["items"][0]) == bool(sure)


def test_chances_are_those_of_the_room(fits):
    fit = fits("structured")
    user, _ = ids(fit)
    told = client(fit).post("/recommend", json={"user": user, "top": 3, "top_probability": 5}).json()["items"]
    table = recommend(fit, [user], 3, top_probability=5)
    assert [one["p_top"] for one in told] == table["p_top_5"].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_similar_items_are_those_of_the_room(fits, kind):
    fit = fits(kind)
    _, items = ids(fit)
    told = client(fit).post("/similar", json={"item": items[3], "top": 5, "exclude": items[:2]}).json()
    check_list(told["items"], similar_items(fit, [items[3]], 5, exclude=items[:2]))
    assert told["item"] == items[3]


@pytest.mark.parametrize("kind", KINDS)
def test_similar_users_are_those_of_the_room(fits, kind):
    fit = fits(kind)
    user, other = fit.dataset.user_ids[2:4].tolist()
    told = client(fit).post("/similar-users", json={"user": user, "top": 5, "exclude": [other]}).json()
    table = similar_users(fit, [user], 5, exclude=[other])
    assert told == {"user": user, "users": table.drop(columns="to").to_dict("records")} and len(table) == 5


@pytest.mark.parametrize("kind", ["bayes", "map", "whole", "stars"])
def test_a_new_user_is_folded_in_and_forgotten(fits, kind):
    fit = fits(kind)
    _, items = ids(fit)
    more = {"ratings": [5.0, 1.0]} if kind == "stars" else {}
    asking = client(fit)
    told = asking.post("/fold-in", json={"items": items[:2], "top": 6} | more).json()
    new = 10_000 if kind == "whole" else "somebody"
    folded = fold_in(fit, [new] * 2, items[:2], ratings=more.get("ratings"))
    check_list(told["items"], recommend(folded, [new], 6))
    assert told["origin"] == "folded in" and "user" not in told
    assert asking.get("/health").json()["users"] == N_USERS


@pytest.mark.parametrize("kind", ["bayes", "structured", "map", "whole", "stars"])
def test_a_new_item_is_read_and_forgotten(fits, kind):
    fit = fits(kind)
    user, _ = ids(fit)
    asking = client(fit)
    told = asking.post(
        "/new-item", json={"text": "comet sail comet", "title": "oven", "users": [user], "top": 3}
    ).json()
    new = 10_000 if kind == "whole" else "new"
    more = add_items(fit, [new], ["comet sail comet"], titles=["oven"])
    check_list(told["similar"], similar_items(more, [new], 3))
    (row,) = recommend(more, [user], 1, candidates=[new]).to_dict("records")
    assert told["words"] == 4 and told["scores"][0]["score"] == row["score"]
    assert told["scores"][0].get("sd", "none") == ("none" if kind == "map" else row["sd"])
    assert asking.get("/health").json()["items"] == N_ITEMS


@pytest.mark.parametrize("kind", KINDS)
def test_reasons_are_those_of_the_room(fits, kind):
    fit = fits(kind)
    user, items = ids(fit)
    asking = client(fit)
    told = asking.post("/why", json={"user": user, "items": items[4:6], "reasons": 2}).json()["items"]
    found = why(fit, user, items[4:6], 2)
    assert [one["item"] for one in told] == items[4:6]
    for one, row in zip(told, found.scores.to_dict("records"), strict=True):
        assert [one[name] for name in ("score", "chosen", "rest")] == [
            row[name] for name in ("score", "chosen", "rest")
        ]
        own = found.reasons[found.reasons["item"] == row["item"]]
        assert [reason["because"] for reason in one["reasons"]] == own["because"].tolist()
        assert [reason["share"] for reason in one["reasons"]] == own["share"].tolist()
        assert all(("content" in reason) == (kind != "pmf") for reason in one["reasons"])
    first = asking.post("/why", json={"user": user, "top": 3, "reasons": 1}).json()["items"]
    assert [one["item"] for one in first] == recommend(fit, [user], 3)["item"].tolist()


def test_reasons_for_a_new_user(fits):
    fit = fits("bayes")
    _, items = ids(fit)
    told = client(fit).post("/why", json={"liked": {"items": items[:2]}, "items": [items[9]]}).json()
    found = why(fold_in(fit, ["x"] * 2, items[:2]), "x", [items[9]])
    assert [one["share"] for one in told["items"][0]["reasons"]] == found.reasons["share"].tolist()
    assert "user" not in told


def test_whole_ids_may_be_spelled(fits):
    fit = fits("whole")
    one, other, pointed = (client(fit).post("/recommend", json={"user": user}).json() for user in (14, "14", 14.0))
    assert one == other == pointed and one["user"] == 14


def test_whole_numbers_may_have_a_point(fits):
    """What JSON Schema calls an integer is one."""
    asking, body = client(fits("bayes")), {"user": "用户-1", "top": 3, "top_probability": 2}
    pointed = body | {"top": 3.0, "top_probability": 2.0}
    told = asking.post("/recommend", json=pointed)
    assert told.status_code == 200 and told.json() == asking.post("/recommend", json=body).json()


# --- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/recommend", {"user": "nobody"}, 404, "no user has the id 'nobody'"),
        ("/recommend", {"user": 3}, 404, "no user has the id 3"),
        ("/recommend", {"user": "用户-1", "exclude": ["i1", "x\x1b"]}, 404, r"no item has the id 'x\x1b'"),
        ("/recommend", {"user": "用户-1", "candidates": []}, 400, "no item is left to be ranked"),
        ("/similar", {"item": "x"}, 404, "no item has the id 'x'"),
        ("/similar-users", {"user": "x"}, 404, "no user has the id 'x'"),
        ("/similar-users", {"user": "用户-1", "exclude": ["x"]}, 404, "no user has the id 'x'"),
        ("/fold-in", {"items": ["i1", "x"]}, 404, "no item has the id 'x'"),
        ("/fold-in", {"items": ["i1"], "ratings": [1]}, 400, "leave ratings out"),
        ("/fold-in", {"items": ["i1"], "ratings": []}, 422, "1 item has 0 ratings"),
        ("/fold-in", {"items": []}, 422, "items: "),
        ("/new-item", {"text": "comet", "users": ["x"]}, 404, "no user has the id 'x'"),
        ("/new-item", {"text": "x" * 60_000}, 422, "text: "),
        ("/new-item", {"text": "\ud800"}, 422, "text: "),
        ("/new-item", {"text": ""}, 422, "text: String should have at least 1 character"),
        ("/why", {"user": "用户-1", "items": ["x"]}, 404, "no item has the id 'x'"),
        ("/why", {"items": ["i1"]}, 422, "needs either a user or what one has liked"),
        ("/why", {"user": "用户-1", "items": ["i1"] * 51}, 422, "items: "),
        ("/recommend", {"user": "用户-1", "top": 1001}, 422, "top: "),
        ("/recommend", {"user": "用户-1", "top": True}, 422, "top: "),
        ("/recommend", {"user": "用户-1", "top": 1.5}, 422, "top: "),
        ("/recommend", {"user": "用户-1", "top": 1e3 + 1}, 422, "top: "),
        ("/recommend", {"user": "用户-1", "interval": 1}, 422, "interval: "),
        ("/recommend", {"user": "用户-1", "trust": "os.system"}, 422, "trust: "),
        ("/recommend", {"user": 2**63}, 422, "user: must be an id"),
        ("/recommend", {"user": 0.5}, 422, "user: must be an id"),
        ("/recommend", {"user": 2.0**60}, 422, "user: must be an id"),
        ("/recommend", {"user": {"id": 1}}, 422, "user: must be an id"),
        ("/recommend", {"user": "x" * 1001}, 422, "user: must be an id"),
        ("/nowhere", {}, 404, "Not Found"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_in_one_line(fits, path, body, status, said):
    content = json.dumps(body)  # with surrogates as escapes
    told = client(fits("bayes")).post(path, content=content, headers={"content-type": "application/json"})
    assert (told.status_code, list(told.json())) == (status, ["error"]), told.text
    assert (
        "Value" not in told.json()["error"]
        and said in told.json()["error"]
        and "\n" not in told.json()["error"]
        and "Traceback" not in told.text
    )


def test_a_body_without_its_header_and_another_method_say_what_to_do(fits):
    asking, body = client(fits("bayes")), json.dumps({"user": "用户-1"})
    for kind in ("application/x-www-form-urlencoded", "text/plain"):
        told = asking.post("/recommend", content=body, headers={"content-type": kind})
        assert (told.status_code, told.json()["error"].partition(": ")[2]) == (
            422,
            "send the header content-type: application/json",
        )
    told = asking.post("/recommend", content="[]", headers={"content-type": "application/json; charset=utf-8"})
    assert told.status_code == 422 and "header" not in told.json()["error"]
    told = asking.get("/recommend", params={"user": "用户-1"})
    assert (told.status_code, told.json()["error"], told.headers["allow"]) == (405, "ask this by POST", "POST")


def test_a_point_and_a_model_without_texts_say_so(fits):
    asking = client(fits("map"))
    for more in ({"interval": 0.9}, {"top_probability": 3}):
        told = asking.post("/recommend", json={"user": "用户-1"} | more)
        assert told.status_code == 400 and "has no uncertainty" in told.json()["error"]
    told = client(fits("pmf")).post("/new-item", json={"text": "comet"})
    assert told.status_code == 400 and "reads no content" in told.json()["error"]
    told = client(fits("stars")).post("/fold-in", json={"items": ["i1"]})
    assert told.status_code == 400 and "give ratings" in told.json()["error"]


RAW = (b"[" * 100_000, b'{"user":' * 100_000, b"9" * 5000, b'{"user": ' + b"9" * 4000 + b"}", b"\xff\xfe", b"", b"null")
RAW += (b'{"user": NaN}', b'{"user": -Infinity, "top": 1e400}', b'{"user": "\\ud800"}', b'{"user": "a\\u0000"}')
ODD = (
    None,
    True,
    -1,
    0,
    2**63,
    10**400,
    1e308,
    float("nan"),
    "",
    "\x00",
    "\u202e",
    "\ud83d",
    "٣",
    [],
    [[]],
    {},
    {"a": 1},
)
ODD += ("x" * 5000, ["x"] * 30_000, [float("nan")], "i1", ["i1", "i1"], ["i1"] * 20_000)
FIELDS = {
    "/recommend": ("user", "top", "candidates", "exclude", "interval", "top_probability"),
    "/similar": ("item", "top", "exclude"),
    "/similar-users": ("user", "top", "exclude"),
    "/fold-in": ("items", "ratings", "top", "interval"),
    "/new-item": ("text", "title", "users", "top"),
    "/why": ("user", "liked", "items", "top", "reasons"),
}
GOOD = {"user": "用户-1", "item": "i1", "items": ["i1", "i2"], "text": "comet"}


@pytest.mark.parametrize("path", FIELDS)
def test_whatever_is_sent_the_service_does_not_fail(fits, path):
    asking, said = client(fits("bayes")), {"content-type": "application/json"}
    good = {name: value for name, value in GOOD.items() if name in FIELDS[path]}
    assert asking.post(path, json=good).status_code == 200
    bodies = [*RAW, *(json.dumps(good | {name: odd}).encode() for name in FIELDS[path] for odd in ODD)]
    statuses = [asking.post(path, content=body, headers=said).status_code for body in bodies]
    assert set(statuses) <= {200, 400, 404, 413, 422} and set(statuses) >= {200, 422}


def test_a_large_body_is_refused_before_it_is_read(fits):
    asking, said = client(fits("bayes")), {"content-type": "application/json"}
    read = itertools.count()

    def parts():
        for _ in range(10_000):
            next(read)
            yield b" " * 2**16

    told = asking.post("/recommend", content=b" " * (MOST_BYTES + 1), headers=said)
    assert told.status_code == 413 and "1,048,576" in told.json()["error"]
    assert asking.post("/recommend", content=parts(), headers=said).status_code == 413
    assert asking.post("/recommend", content=b"{}", headers=said | {"content-length": "-1"}).status_code == 413
    body = json.dumps({"user": "用户-1"}).encode()
    assert asking.post("/recommend", content=body + b" " * (MOST_BYTES - len(body)), headers=said).status_code == 200
    assert asking.post("/recommend", content=iter([body[:5], body[5:]]), headers=said).status_code == 200


def test_a_body_that_says_that_it_is_large_is_not_read_at_all():
    sent = []

    async def receive():
        raise AssertionError("it was read")

    async def send(message):
        sent.append(message)

    metrics = Metrics(["/why"])
    scope = {"type": "http", "path": "/why", "headers": [(b"content-length", str(MOST_BYTES + 1).encode())]}
    asyncio.run(Guard(None, metrics)(scope, receive, send))
    assert [message.get("status") for message in sent] == [413, None]
    assert 'path="/why",status="413"} 1' in metrics.text({})


def test_what_the_machine_lacks_and_what_nobody_foresaw(fits, monkeypatch):
    def no_memory(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    asking = client(fits("bayes"))
    monkeypatch.setattr("inference.serving.answers.recommend", no_memory)
    told = asking.post("/recommend", json={"user": "用户-1"})
    assert told.status_code == 503 and told.json()["error"].startswith("out of memory")
    monkeypatch.setattr("inference.serving.answers.recommend", lambda *_, **__: {}["secret"])
    asking = TestClient(create_app(fits("bayes")), raise_server_exceptions=False)
    told = asking.post("/recommend", json={"user": "用户-1"})
    assert told.status_code == 500 and "secret" not in told.text and list(told.json()) == ["error"]
    assert 'path="/recommend",status="500"} 1' in asking.get("/metrics").text


# --- who may ask -----------------------------------------------------------------------------------------------------


def test_the_token_is_asked_for(fits):
    asking = client(fits("bayes"), token=TOKEN)
    for given in (None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN):
        headers = {} if given is None else {"authorization": given}
        for method, path in (
            ("POST", "/recommend"),
            ("POST", "/reload"),
            ("GET", "/metrics"),
            ("GET", "/openapi.json"),
        ):
            told = asking.request(method, path, headers=headers)
            assert (told.status_code, told.headers["www-authenticate"]) == (401, "Bearer")
    right = {"authorization": f"Bearer {TOKEN}"}
    assert asking.post("/recommend", json={"user": "用户-1"}, headers=right).status_code == 200
    assert asking.get("/metrics", headers=right).status_code == 200
    assert asking.get("/health").status_code == asking.get("/").status_code == 200


def test_another_sites_page_and_another_name_are_refused(fits):
    asking = client(fits("bayes"), hosts=("localhost", "127.0.0.1", "::1"))
    for host, status in (
        ("127.0.0.1:8000", 200),
        ("LOCALHOST", 200),
        ("[::1]:1", 200),
        ("evil.example", 400),
        ("", 400),
    ):
        assert asking.get("/health", headers={"host": host}).status_code == status
    for origin, status in (("http://localhost:1", 200), ("http://evil.example", 403), ("null", 403), ("http://[", 403)):
        headers = {"host": "localhost:1", "origin": origin}
        assert asking.post("/recommend", json={"user": "用户-1"}, headers=headers).status_code == status


def test_only_this_machine_or_the_token_reloads(fits):
    new = fits("structured")  # fitted here, not within a request, where nothing has a gradient

    def source():
        return new

    for peer, status in (("127.0.0.1", 200), ("::1", 200), ("10.0.0.1", 403), ("testclient", 403)):
        assert client(fits("bayes"), peer, source=source).post("/reload").status_code == status
    right = {"authorization": f"Bearer {TOKEN}"}
    told = client(fits("bayes"), "10.0.0.1", source=source, token=TOKEN).post("/reload", headers=right)
    assert told.status_code == 200 and told.json()["posterior"] == "structured" and told.json()["loaded"] == 2
    told = client(fits("bayes"), "127.0.0.1").post("/reload")
    assert told.status_code == 400 and "was given a fit" in told.json()["error"]


@pytest.mark.parametrize(
    ("host", "own"), [("127.0.0.1", 1), ("127.9.9.9", 1), ("::1", 1), ("localhost", 1), ("0.0.0.0", 0), ("x", 0)]
)
def test_what_is_this_machine_alone(host, own):
    assert is_loopback(host) == bool(own)


# --- reloading -------------------------------------------------------------------------------------------------------


def test_requests_go_on_while_runs_are_exchanged(fits):
    turns = itertools.cycle([fits("structured"), fits("bayes")])
    asking = client(fits("bayes"), "127.0.0.1", source=lambda: next(turns))
    body = {"user": "用户-1", "top": 5}
    wanted = [recommend(fits(kind), ["用户-1"], 5)["score"].tolist() for kind in ("bayes", "structured")]
    assert wanted[0] != wanted[1]
    ended = threading.Event()

    def ask():
        answers = []
        while not ended.is_set():
            told = asking.post("/recommend", json=body)
            assert told.status_code == 200
            answers.append([one["score"] for one in told.json()["items"]])
        return answers

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask) for _ in range(3)]
        try:
            statuses = []
            for _ in range(10):
                statuses.append(asking.post("/reload").status_code)
                time.sleep(0.02)
        finally:
            ended.set()
        answers = [one for future in asked for one in future.result()]
    assert statuses == [200] * 10 and asking.get("/health").json()["loaded"] == 11
    assert all(one in wanted for one in answers) and all(one in answers for one in wanted)


def test_two_do_not_load_at_once_and_a_wrong_run_changes_nothing(fits):
    inside, go = threading.Event(), threading.Event()

    def slow():
        inside.set()
        assert go.wait(10)
        raise InputError("is no run folder")

    asking = client(fits("bayes"), "127.0.0.1", source=slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(asking.post, "/reload")
        assert inside.wait(10)
        second = asking.post("/reload")
        go.set()
    assert second.status_code == 400 and "by another request" in second.json()["error"]
    assert first.result().status_code == 400 and first.result().json() == {"error": "is no run folder"}
    assert asking.get("/health").json()["loaded"] == 1
    assert asking.post("/recommend", json={"user": "用户-1"}).status_code == 200


def test_a_folder_that_is_replaced_is_loaded(tmp_path):
    run = tmp_path / "run"
    fitted(out=run)
    warm = Warm(inference.load(run), lambda: inference.load(run))
    watch = Watch(warm, run, 0.02)
    watch.start()
    try:
        before = warm.fit
        fitted(out=run, overwrite=True, seed=1)
        until = time.monotonic() + 20
        while warm.loaded == 1 and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        watch.stop()
    assert warm.loaded == 2 and warm.fit is not before
    assert warm.fit.options.fit.seed == 1


# --- the page and what is measured -----------------------------------------------------------------------------------


def test_the_page_fetches_nothing_and_puts_no_data_into_markup(fits):
    told = client(fits("bayes")).get("/")
    policy = told.headers["content-security-policy"]
    assert told.headers["content-type"].startswith("text/html") and "default-src 'none'" in policy
    assert policy.count("'sha256-") == 2 and "unsafe" not in policy
    words = app_module.PAGE.read_text("utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(| style=| on\w+=", words)
    assert set(re.findall(r"https?://[^\"]+", words)) == {"http://www.w3.org/2000/svg"}


def test_counts_and_latencies(fits):
    asking = client(fits("bayes"))
    for user in ("用户-1", "用户-1", "x"):
        asking.post("/recommend", json={"user": user})
    asking.get("/wp-admin/../" + "x" * 50)
    told = asking.get("/metrics")
    assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = dict(line.rsplit(" ", 1) for line in told.text.splitlines() if not line.startswith("#"))
    assert lines['pyro_cvae_requests_total{path="/recommend",status="200"}'] == "2"
    assert lines['pyro_cvae_requests_total{path="/recommend",status="404"}'] == "1"
    assert lines['pyro_cvae_requests_total{path="other",status="404"}'] == "1"
    assert lines['pyro_cvae_request_seconds_count{path="/recommend"}'] == "3"
    assert lines['pyro_cvae_request_seconds_bucket{path="/recommend",le="+Inf"}'] == "3"
    assert float(lines['pyro_cvae_request_seconds_sum{path="/recommend"}']) > 0
    assert lines["pyro_cvae_items"] == str(N_ITEMS)


def test_the_endpoints_are_described(fits):
    asking = client(fits("bayes"))
    told = asking.get("/openapi.json").json()
    assert set(told["paths"]) == {*FIELDS, "/health", "/metrics", "/reload"}
    assert asking.get("/docs").status_code == asking.get("/redoc").status_code == 404
    text = told["components"]["schemas"]["NewItemAsked"]["properties"]["text"]
    assert (text["minLength"], text["maxLength"]) == (1, MOST_TEXT)
    words = json.dumps(told)
    assert "trust" not in words and '"path"' not in words  # no request says what is opened


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
FLAGS += ("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=8000", "--dump-dom")


@contextmanager
def answering(app):
    """The service in a thread; gives its port."""
    with listening("127.0.0.1", 0) as found:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [found]})
        thread.start()
        try:
            yield found.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on this machine")
@pytest.mark.parametrize("asked_for", ["user=用户-1", "liked=i2,i3"])
@pytest.mark.parametrize("kind", ["structured", "map"])
def test_a_browser_shows_lists_and_reasons_as_text(fits, tmp_path, monkeypatch, kind, asked_for):
    page, fit = app_module.PAGE.read_text("utf-8"), fits(kind)
    press = 'setTimeout(() => document.querySelector("li button").click(), 2000);\n</script>'
    (tmp_path / "page.html").write_text(page.replace("</script>", press), encoding="utf-8")
    monkeypatch.setattr(app_module, "PAGE", tmp_path / "page.html")
    seen = fit.dataset.interactions.users[fit.dataset.interactions.items == 1]
    user = next(one for row, one in enumerate(fit.dataset.user_ids) if row not in seen)
    with answering(create_app(fit)) as port:
        address = f"http://127.0.0.1:{port}/?{asked_for.replace('用户-1', quote(user))}&top=30"
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", address]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    body = shown[shown.index("<body") : shown.index("<script")]
    assert "&lt;img src=x onerror=alert(1)&gt;" in body and "<img" not in body
    assert body.count("<svg") == body.count("Why?") >= 15
    assert body.count('class="range"') == (body.count("<svg") if kind == "structured" else 0)
    assert body.count('class="reasons"') == 1 and "% title " in body


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_explains_itself(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command", "--help"])
    with pytest.raises(SystemExit) as done:
        main()
    told = capsys.readouterr().out
    assert done.value.code == 0
    assert all(f"  --{flag} " in told for flag in ("host", "port", "token-file", "threads", "watch", "trust"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--port", "70000"), "--port is 70000, but it must be from 0 to 65535"),
        (("--host", " "), "--host is ' '"),
        (("--host", "no such host."), "which is no address"),
        (("--watch", "nan"), "--watch is 'nan'"),
        (("--threads", "-1"), "--threads is -1"),
        (("--token-file", "nowhere"), "no such file of a token"),
    ],
)
def test_a_wrong_word_is_answered_in_one_line(run, answer, words, said):
    code, out, err = answer(main, run, *words)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1


def test_tokens(tmp_path):
    path = tmp_path / "token"
    for wrong in (b"", b"short", b"two words of a token", b"\xff" * 20, "тайна-тайна-тайна".encode()):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match="openssl rand -hex 32"):
            read_token(str(path))
    path.write_text(f" {TOKEN}\n")
    assert read_token(str(path)) == TOKEN


def test_a_port_that_is_taken_is_told(run, answer):
    with listening("127.0.0.1", 0) as found:
        found.listen()
        code, _, err = answer(main, run, "--port", found.getsockname()[1])
    assert code == 1 and "cannot listen at 127.0.0.1" in err and err.count("\n") == 1


def test_without_its_packages_it_is_said_how_to_install_them(run, answer, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MachineError, match="pip install uvicorn"):
        check_installed()
    code, _, err = answer(main, run)
    assert (code, err) == (1, "error: inference.serve needs the package uvicorn; install with: pip install uvicorn\n")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def asked(port, path="/health", seconds=60):
    """What a service that is starting answers."""
    until = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as told:
                return json.load(told)
        except (ConnectionError, urllib.error.URLError):
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def test_the_command_serves_and_stops(run, answer, tmp_path, threads):
    port, found = free_port(), []
    (tmp_path / "token").write_text(TOKEN)

    def ask_and_stop():
        try:
            found.append(asked(port))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    asking = threading.Thread(target=ask_and_stop)
    asking.start()
    try:
        code, out, err = answer(main, run, "--port", port, "--token-file", tmp_path / "token", "--watch", 5)
    finally:
        asking.join()
        signal.signal(signal.SIGTERM, before)
    assert (code, err) == (0, "") and f"http://127.0.0.1:{port}" in out
    assert found[0]["status"] == "ok" and found[0]["users"] == N_USERS


@pytest.mark.slow
def test_a_process_of_its_own_stops_when_it_is_told_to(run):
    port = free_port()
    command = [sys.executable, "-m", "inference.serve", str(run), "--port", str(port), "--host", "0.0.0.0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert asked(port)["items"] == N_ITEMS
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0 and f"at http://0.0.0.0:{port}" in out
    assert err.startswith("warning: whoever reaches 0.0.0.0 may ask") and err.count("\n") == 1
