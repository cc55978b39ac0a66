"""Users that are like a user: the cosine, who is left out, and the command."""

import io
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

import inference
from inference.recommend import main
from inference.recommending import fold_in, neighbours, similar_users
from inference.recommending.neighbours import nearest
from pyro_cvae.data.frames import from_frames
from pyro_cvae.errors import InputError

OPTIONS = {"factors": 3, "hidden": (6,), "train_per_user": 4, "pretrain_epochs": 1, "epochs": 3}


def make_dataset(ratings="clicks"):
    rng = np.random.default_rng(2)
    pairs = [(u, int(j)) for u in range(12) for j in rng.choice(20, 4 + u % 4, replace=False)]
    texts = [" ".join(rng.choice(["sail", "mast", "oven", "proof", "lemma"], 6)) for _ in range(20)]
    table = {"user": [f"u{u}" for u, _ in pairs], "item": [f"i{j}" for _, j in pairs]}
    stars = {"rating": rng.integers(1, 6, len(pairs)).tolist()} if ratings == "stars" else {}
    return from_frames(table | stars, {"item": [f"i{j}" for j in range(20)], "text": texts}, ratings=ratings)


@pytest.fixture(scope="module")
def fits():
    kinds = {"map": {"mode": "map"}, "bayes": {}, "full": {"method": "coordinate"}}
    found = {kind: inference.fit(make_dataset(), **OPTIONS | chosen) for kind, chosen in kinds.items()}
    stars = {"rating_likelihood": "normal", "biases": "on"}
    return found | {"stars": inference.fit(make_dataset("stars"), **OPTIONS | stars, method="coordinate")}


@pytest.mark.parametrize("kind", ["map", "bayes", "full", "stars"])
@pytest.mark.parametrize("at_once", [2**24, 30])
def test_the_users_found_are_those_of_brute_force(fits, kind, at_once, monkeypatch):
    monkeypatch.setattr(neighbours, "SCORES_AT_ONCE", at_once)
    fit = fits[kind]
    u = fit.posterior.u_loc.double().numpy()[:, :3]  # without the biases
    unit = u / np.linalg.norm(u, axis=1, keepdims=True)
    asked = ["u7", "u2", "u11", "u0", "u5"]
    table = similar_users(fit, asked, 4, exclude=["u3"])
    assert table.columns.tolist() == ["to", "rank", "user", "score", "pairs"] and len(table) == 20
    for user in asked:
        row = fit.dataset.user_ids.tolist().index(user)
        cosine = unit @ unit[row]
        cosine[[row, fit.dataset.user_ids.tolist().index("u3")]] = -2
        best = np.argsort(-cosine)[:4]
        mine = table[table["to"] == user]
        assert mine["user"].tolist() == fit.dataset.user_ids[best].tolist() and mine["rank"].tolist() == [1, 2, 3, 4]
        np.testing.assert_allclose(mine["score"], cosine[best], rtol=1e-5, atol=1e-6)
        assert mine["pairs"].tolist() == [(fit.split.train.users == other).sum() for other in best]


def test_users_of_whom_nothing_is_known_are_like_nobody(fits):
    more = fold_in(fits["bayes"], ["empty", "new", "new"], ["i99", "i1", "i2"], unknown="drop")
    assert "empty" in more.dataset.user_ids
    assert "empty" not in similar_users(more, ["u1", "new"], 99)["user"].tolist()
    with pytest.raises(InputError, match="user 'empty' has no training pair, so nobody is like them"):
        similar_users(more, ["u1", "empty"])
    with pytest.raises(InputError, match="no user has the id 'x'"):
        similar_users(more, ["x"])
    assert set(similar_users(more, ["x", "empty", "u1"], 2, unknown="drop")["to"]) == {"u1"}
    assert len(similar_users(more, ["x"], unknown="drop")) == 0


def test_two_users_with_the_same_items_are_alike(fits):
    liked = ["i1", "i4", "i9"]
    more = fold_in(fits["full"], ["one"] * 3 + ["two"] * 3, liked * 2)
    (first,) = similar_users(more, ["one"], 1).itertuples()
    assert first.user == "two" and first.score == pytest.approx(1, abs=1e-6) and first.pairs == 3


def test_nothing_is_found_where_nothing_is_allowed():
    values, found = nearest(torch.eye(3), np.array([0, 2]), np.array([False, True, False]), 5)
    assert values.shape == found.shape == (2, 3) and torch.isfinite(values).sum(1).tolist() == [1, 1]
    assert found[:, 0].tolist() == [1, 1]


def test_the_command(tmp_path, answer):
    call = partial(answer, main)
    fit = inference.fit(make_dataset(), **OPTIONS, out=tmp_path / "run")
    code, said, err = call(tmp_path / "run", "--similar-users", "u3", "u1", "--top", 2, "--format", "csv")
    assert (code, err) == (0, "")
    told = pd.read_csv(io.StringIO(said))
    pd.testing.assert_frame_equal(told, similar_users(fit, ["u3", "u1"], 2), rtol=1e-6, check_dtype=False)
    code, said, err = call(tmp_path / "run", "--similar-users", "u3", "--top", 2)
    assert (code, err) == (0, "") and "pairs" in said
    for more, line in (
        (("--similar", "i1"), "--similar-users is an answer of its own"),
        (("--likes", "i1"), "--similar-users is an answer of its own"),
        (("--exclude", "x"), "--candidates and --exclude are items"),
        (("--why", "3"), "--why gives the reasons of lists"),
    ):
        code, _, err = call(tmp_path / "run", "--similar-users", "u3", *more)
        assert code == 2 and line in err


def test_no_cosine_is_above_one():
    """Rows of one direction, whose cosines in single precision round to more than 1."""
    lengths = torch.linspace(0.1, 9.0, 400)
    vectors = lengths[:, None] * torch.tensor([[0.3, -1.7, 0.9]])
    allowed = np.ones(400, bool)
    allowed[7] = False
    values, _ = nearest(torch.cat([vectors, -vectors]), np.arange(5), np.tile(allowed, 2), 800)
    assert values[values.isfinite()].abs().max() == 1 and not values[:, -2:].isfinite().any()
