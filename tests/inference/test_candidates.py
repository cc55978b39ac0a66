"""Candidates of an evaluation, and each group's ranking among its own items, against rankings by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

import inference
from inference.evaluate import main
from inference.evaluation.candidates import CandidateSet, read_candidates
from inference.evaluation.rankings import evaluate
from inference.evaluation.rivals import RIVALS
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.splits import GROUPS, item_groups, per_user
from pyro_cvae.errors import InputError

N_USERS, N_ITEMS = 20, 30


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    rows = [(f"u{i}", int(j)) for i in range(N_USERS) for j in rng.choice(N_ITEMS, 9, replace=False)]
    users, items = map(list, zip(*rows, strict=True))
    texts = [" ".join(rng.choice(["comet", "sail", "oven", "lemma"], 6)) for _ in range(N_ITEMS)]
    dataset = from_frames({"user": users, "item": items}, {"item": list(range(N_ITEMS)), "text": texts})
    return dataset, per_user(dataset, 3, 0), rng.normal(size=(N_USERS, N_ITEMS))


def block(scores):
    return lambda users: torch.from_numpy(scores)[torch.from_numpy(users)]


def by_hand(split, scores, may, m, protocol="corrected", counted=None):
    """recall@m of each user over the items ``may`` (n_users, n_items), relevant ones those of ``counted`` too."""
    train, test = (part.csr().toarray() > 0 for part in (split.train, split.test))
    relevant = (train | test if protocol == "paper" else test) & may
    relevant = relevant if counted is None else relevant & counted
    found = []
    for user in range(N_USERS):
        ranked = may[user] if protocol == "paper" else may[user] & ~train[user]
        order = [j for j in np.argsort(-scores[user]) if ranked[j]][:m]
        found.append(relevant[user, order].sum() / relevant[user].sum() if relevant[user].any() else np.nan)
    return np.array(found)


def sets(rng):
    some = rng.random(N_ITEMS) < 0.6
    own = rng.random((N_USERS, N_ITEMS)) < 0.5
    own[3] = False
    import scipy.sparse as sp

    return {
        "all": (None, np.ones((N_USERS, N_ITEMS), bool)),
        "items": (CandidateSet(some), np.tile(some, (N_USERS, 1))),
        "pairs": (CandidateSet(own.any(0), sp.csr_matrix(own.astype(np.float32))), own),
    }


@pytest.mark.parametrize("protocol", ["corrected", "paper"])
@pytest.mark.parametrize("name", ["all", "items", "pairs"])
def test_candidates_are_all_that_is_ranked(data, name, protocol):
    _, split, scores = data
    among, may = sets(np.random.default_rng(1))[name]
    found = evaluate(block(scores), split, cutoffs=(3, 8), candidates=among, protocol=protocol, block_size=7)
    for m in (3, 8):
        expected = by_hand(split, scores, may, m, protocol)
        assert found.per_user["user"].tolist() == np.flatnonzero(~np.isnan(expected)).tolist()
        np.testing.assert_allclose(found.per_user[f"recall@{m}"], expected[~np.isnan(expected)])


@pytest.mark.parametrize("protocol", ["corrected", "paper"])
@pytest.mark.parametrize("name", ["all", "items", "pairs"])
def test_each_group_is_ranked_among_its_own_items_too(data, name, protocol):
    _, split, scores = data
    among, may = sets(np.random.default_rng(1))[name]
    found = evaluate(block(scores), split, cutoffs=(2, 5), candidates=among, protocol=protocol, block_size=7).groups
    group_of = item_groups(split.train)
    assert len(found) >= 2
    for group in found.index:
        mine = np.tile(group_of == GROUPS.index(group), (N_USERS, 1))
        for m in (2, 5):
            assert found.loc[group, f"own_recall@{m}"] == pytest.approx(
                np.nanmean(by_hand(split, scores, may & mine, m, protocol))
            )
            assert found.loc[group, f"recall@{m}"] == pytest.approx(
                np.nanmean(shares(split, scores, may, mine, m, protocol))
            )
        assert found.loc[group, "n_items"] == (mine & may).any(0).sum()


def shares(split, scores, may, mine, m, protocol):
    """The same of the joint ranking, of relevant items of the group alone."""
    return by_hand(split, scores, may, m, protocol, counted=mine)


def test_files_of_candidates(data, tmp_path):
    dataset, split, _ = data
    (tmp_path / "few.txt").write_text("3\n\n7\n12\n", encoding="utf-8")
    (tmp_path / "few.csv").write_text("title,item\na,3\nb,7\nc,12\n", encoding="utf-8")
    pd.DataFrame({"item": [3, 7, 12]}).to_parquet(tmp_path / "few.parquet")
    (tmp_path / "own.csv").write_text("user,item\nu1,3\nu1,4\nu1,3\nu2,4\n", encoding="utf-8")
    for name in ("few.txt", "few.csv", "few.parquet"):
        found = read_candidates(str(tmp_path / name), dataset)
        assert np.flatnonzero(found.items).tolist() == [3, 7, 12] and found.pairs is None
    own = read_candidates(str(tmp_path / "own.csv"), dataset)
    one, two = dataset.user_rows(["u1", "u2"])
    assert own.pairs[one].indices.tolist() == [3, 4] and own.pairs[two].indices.tolist() == [4] and own.pairs.nnz == 3
    inside = sum(int(j in own.pairs[i].indices) for i, j in zip(split.test.users, split.test.items, strict=True))
    assert f"3 pairs of 2 users and 2 items ({own.name}); {inside} of {len(split.test)} test pairs" in own.told(split)
    for name, text, problem in (
        ("wrong.txt", "3\n99\n", r"wrong.txt:2: no item has the id '99'"),
        ("wrong.csv", "user,item\nu1,3\nnobody,3\n", r"wrong.csv:3: no user has the id 'nobody'"),
        ("empty.txt", "\n", "holds no id"),
        ("no.csv", "thing\n3\n", "no column item"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=problem):
            read_candidates(str(tmp_path / name), dataset)


def test_the_command_takes_candidates_and_says_so(data, tmp_path, capsys):
    dataset, split, _ = data
    small = {"factors": 2, "hidden": (4,), "pretrain_epochs": 1, "epochs": 1, "mode": "map"}
    fit = inference.fit(dataset, split, out=tmp_path / "run", **small)
    (tmp_path / "few.txt").write_text("\n".join(map(str, range(0, 30, 2))), encoding="utf-8")
    out = tmp_path / "means.csv"
    argv = [str(tmp_path / "run"), "--rivals", "--cutoffs", "5", "--candidates", str(tmp_path / "few.txt")]
    main([*argv, "--out", str(out)])
    said = capsys.readouterr().out
    assert "Candidates: 15 items" in said and ", alone" in said and ", all ranked" in said
    means = pd.read_csv(out)
    even = CandidateSet(np.arange(N_ITEMS) % 2 == 0)
    for model, score_block in (
        (str(tmp_path / "run"), fit.posterior.score_block),
        ("tfidf", RIVALS["tfidf"](dataset, split)),
    ):
        mine = means[(means["model"] == model) & (means["items"] == "all")]
        expected = evaluate(score_block, split, cutoffs=(5,), candidates=even).means()["recall@5"]
        assert mine["recall@5"].item() == pytest.approx(expected, rel=1e-6)
    assert means["own_recall@5"].notna().equals(means["items"] != "all")
    (tmp_path / "none.csv").write_text("user,item\nu1,3\n", encoding="utf-8")
    unseen = next(j for j in range(N_ITEMS) if j not in split.test.items[split.test.users == dataset.user_rows(["u1"])])
    (tmp_path / "none.csv").write_text(f"user,item\nu1,{unseen}\n", encoding="utf-8")
    with pytest.raises(InputError, match="no user has a test item to rank among the candidates"):
        main([str(tmp_path / "run"), "--candidates", str(tmp_path / "none.csv")])
