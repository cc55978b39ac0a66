"""Lists for very many users: in parts and blocks the same as at once, streamed into files, through an index."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

import inference
from inference import average
from inference.average import average_user
from inference.parts import parts_to
from inference.posterior import Posterior, no_content
from inference.recommend import main
from inference.recommending import conditional, fold_in, lists, ranking, recommend
from inference.recommending.best import Best
from inference.recommending.indexed import Indexed, recall
from inference.recommending.lists import lists_in_parts
from inference.recommending.ranking import Candidates, best_items
from models.gaussians import Gaussians
from pyro_cvae.data.frames import from_frames
from pyro_cvae.errors import InputError

N_USERS, N_ITEMS = 23, 40
SMALL = {"factors": 3, "method": "coordinate", "pretrain_epochs": 1, "epochs": 1, "hidden": (6,), "sweeps": 2}
KINDS = {"map": {"mode": "map"}, "diagonal": {"diagonal": True}, "full": {}, "structured": {"guide": "structured"}}


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    pairs = [(u, int(j)) for u in range(N_USERS) for j in rng.choice(N_ITEMS - 3, 8, replace=False)]
    users, things = zip(*pairs, strict=True)
    texts = [" ".join(rng.choice(["comet", "nebula", "sail", "mast", "oven"], 6)) for _ in range(N_ITEMS)]
    table = {"user": [f"user-{u}" for u in users], "item": [f"item-{j}" for j in things]}
    return from_frames(table, {"item": [f"item-{j}" for j in range(N_ITEMS)], "text": texts})


@pytest.fixture(scope="module")
def fits(dataset):
    return cache(lambda kind: fit_of(dataset, kind))


def fit_of(dataset, kind):
    return inference.fit(dataset, train_per_user=5, quiet=True, **SMALL | KINDS[kind])


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    inference.fit(dataset, train_per_user=5, quiet=True, out=out, **SMALL)
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("top", [1, 7, 60])
def test_the_best_are_those_of_a_whole_sort_whatever_the_blocks(dtype, top):
    rng = np.random.default_rng(1)
    values = rng.integers(-4, 5, (9, 50)).astype(dtype) / 3  # many ties, some of -0
    values[2] = np.sort(values[2])
    values[3, 5:] = -np.inf
    values[4] *= -0.0
    order = np.lexsort((np.broadcast_to(np.arange(50), values.shape), -values), axis=-1)[:, :top]
    wanted = np.take_along_axis(values, order, 1)
    for n_parts in (1, 3, 25):
        best = Best(9, top, dtype)
        for part in range(n_parts):
            columns = np.arange(part, 50, n_parts)
            best.add(np.ascontiguousarray(values[:, columns]), columns)
        best.settle()
        found, there = best.values[:, : wanted.shape[1]], np.isfinite(wanted)
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(best.columns[:, : wanted.shape[1]][there], order[there])
        assert np.isneginf(best.values[:, wanted.shape[1] :]).all()


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("cells", [1, 60])
def test_blocks_of_users_and_items_change_nothing(fits, kind, cells, monkeypatch):
    posterior = fits(kind).posterior
    allowed = torch.ones(N_ITEMS, dtype=torch.bool)
    allowed[::7] = False
    among = Candidates(allowed, lists.known_pairs(fits(kind), np.arange(N_USERS)))
    for how in ("mean",) if kind == "map" else ("mean", "ucb"):
        whole = best_items(posterior, range(N_USERS), 6, among, how)
        scores = posterior.score_block(range(N_USERS))
        if how == "ucb":
            scores = scores + ranking.score_sds(posterior, range(N_USERS))
        wanted = among.mask(scores, torch.arange(N_USERS)).sort(descending=True)
        torch.testing.assert_close(whole[0], wanted.values[:, :6])
        assert (whole[1] == wanted.indices[:, :6]).all()
        with monkeypatch.context() as patch:
            patch.setattr(ranking, "CELLS_AT_ONCE", cells)
            values, items = best_items(posterior, range(N_USERS), 6, among, how, block_size=5)
        torch.testing.assert_close(values, whole[0])
        assert (items == whole[1]).all()


def test_parts_are_the_lists_of_one_call(fits):
    fit = fits("full")
    whole = recommend(fit, fit.dataset.user_ids, 4, interval=0.9)
    parts = lists_in_parts(fit, None, 4, interval=0.9, at_once=28, block_size=7)
    assert len(parts) == 4 and [part["user"].nunique() for part in parts] == [7, 7, 7, 2]
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    drawn = pd.concat(lists_in_parts(fit, None, 4, ranking="thompson", at_once=4, block_size=1), ignore_index=True)
    assert len(drawn) == len(whole) and drawn["thompson"].nunique() == len(drawn)
    (nobody,) = lists_in_parts(fit, ["stranger"], unknown="drop")
    assert len(nobody) == 0


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_everybody_goes_to_a_file(run, tmp_path, answer, ending, monkeypatch):
    fit, path = inference.load(run), tmp_path / f"lists.{ending}"
    monkeypatch.setitem(lists_in_parts.__kwdefaults__, "at_once", 1)
    code, out, _ = answer(main, run, "--everybody", "--top", 3, "--out", path, "--why", 2)
    assert code == 0 and f"{3 * N_USERS} rows: {path}" in out
    read = pd.read_csv if ending == "csv" else pd.read_parquet
    wanted = recommend(fit, fit.dataset.user_ids, 3)
    found = read(path)
    assert found["item"].tolist() == wanted["item"].tolist() and found["user"].tolist() == wanted["user"].tolist()
    np.testing.assert_allclose(found["score"], wanted["score"], rtol=1e-6)
    scores, reasons = (read(path.with_suffix(f".{name}.{ending}")) for name in ("scores", "reasons"))
    assert len(scores) == len(wanted) and set(reasons["item"]) <= set(wanted["item"])


def test_what_is_cut_short_leaves_the_old_file(tmp_path):
    path = tmp_path / "lists.parquet"
    with parts_to(path) as write:
        write(pd.DataFrame({"item": ["a"], "title": [None]}))
        write(pd.DataFrame({"item": ["b"], "title": ["B"]}))
    before = path.read_bytes()
    assert pd.read_parquet(path)["title"].tolist()[1] == "B"
    for name in ("lists.parquet", "lists.csv"):
        with pytest.raises(KeyboardInterrupt), parts_to(tmp_path / name) as write:
            write(pd.DataFrame({"item": ["c"], "title": ["C"]}))
            raise KeyboardInterrupt
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["lists.parquet"]


def test_an_index_of_few_items_misses_nothing(fits, run, tmp_path, answer):
    pytest.importorskip("faiss")
    fit = fits("map")
    wanted = recommend(fit, fit.dataset.user_ids, 5, exclude=["item-3"])
    found = recommend(fit, fit.dataset.user_ids, 5, exclude=["item-3"], index="faiss")
    pd.testing.assert_frame_equal(found, wanted)
    assert lists_in_parts(fit, None, 5, index="faiss").recall() == 1
    assert len(recommend(fit, ["user-0"], 1000, index="faiss")) == N_ITEMS - 8
    code, out, _ = answer(main, run, "--everybody", "--index", "faiss", "--out", tmp_path / "lists.csv")
    assert code == 0 and f"finds 100.0% of the exact lists (measured on {N_USERS} users)" in out
    with pytest.raises(InputError, match="largest means"):
        recommend(fits("full"), ["user-0"], index="faiss", ranking="thompson")


def test_what_an_index_misses_is_measured():
    pytest.importorskip("faiss")
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(50, 8, generator=generator), torch.randn(3000, 8, generator=generator)
    nothing = no_content(len(v), 8, v)
    posterior = Posterior("point", *map(Gaussians, (u, v)), Gaussians(nothing, nothing), has_content=False)
    among = Candidates(torch.ones(len(v), dtype=torch.bool))
    exact = best_items(posterior, range(50), 10, among)
    shares = [
        recall(exact, Indexed(posterior, among.allowed, probes).best(posterior, 10, among)) for probes in (1, 500)
    ]
    assert 0 < shares[0] < 0.9 and shares[1] == 1
    wrong = exact[0], exact[1].roll(1, 0)
    assert recall(exact, wrong) < 0.5


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_average_user_in_parts(fits, kind, monkeypatch):
    fit = fits(kind)
    whole = average_user(fit.posterior, fit.split.train)
    monkeypatch.setattr(average, "ROWS_AT_ONCE", 4)
    parts = average_user(fit.posterior, fit.split.train)
    torch.testing.assert_close(parts.u_loc, whole.u_loc)
    if kind != "map":
        torch.testing.assert_close(parts.u.variances(), whole.u.variances())


@pytest.mark.parametrize("b_power", [0.0, 0.7])
def test_a_user_folded_in_from_few_items_stands_for_all_of_them(dataset, monkeypatch, b_power):
    own = {"mode": "map", "unrated": "masked", "b_power": b_power}
    fit = inference.fit(dataset, split="none", quiet=True, **SMALL | own)
    few = fold_in(fit, ["new"] * 3, ["item-1", "item-30", "item-7"])
    assert fit in conditional._SQUARES
    monkeypatch.setattr(conditional, "_of_few_items", lambda *given: None)
    whole = fold_in(fit, ["new"] * 3, ["item-1", "item-30", "item-7"])
    assert whole.posterior.u_loc[-1].abs().max() > 0.01
    torch.testing.assert_close(few.posterior.u_loc, whole.posterior.u_loc, rtol=1e-4, atol=1e-6)
