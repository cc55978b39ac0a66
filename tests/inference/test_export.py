"""Exported factors: lists made of the files alone are those of the package, whole folders, and the command."""

import dataclasses
import hashlib
import json
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

import inference
from inference.average import average_user
from inference.export import main
from inference.exporting import export_factors, factors_of
from inference.recommending import add_items, fold_in, recommend
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.splits import by_time
from pyro_cvae.errors import InputError, MachineError

N_ITEMS, EARLY, LATE = 25, [f"用户-{n}" for n in range(10)], ["late-0", "late-1", "late-2"]
WORDS = ("comet", "nebula", "sail", "mast", "oven", "pastry", "lemma", "proof")
SMALL = {"factors": 3, "hidden": (6,), "pretrain_epochs": 2, "epochs": 2, "quiet": True, "threads": 1}
CLOSED = {"method": "coordinate"}
CHAIN = {"method": "mcmc", "draws": 6, "warmup": 3, "chains": 2, "threads": 1}
CHAIN |= {"pretrain_epochs": 2, "hidden": (6,), "factors": 3}
KINDS = {
    "map": CLOSED | {"mode": "map"},
    "cold-scale": CLOSED | {"mode": "map", "cold_scale": 0.3, "cold": "unchosen"},
    "mean-field": {},
    "full": CLOSED,
    "structured": CLOSED | {"guide": "structured"},
    "clicks": {"rating_likelihood": "bernoulli"},
    "pmf": CLOSED | {"model": "pmf"},
    "stars": CLOSED | {"rating_likelihood": "normal"},
    "stars-map": CLOSED | {"rating_likelihood": "normal", "mode": "map"},
    "draws": CHAIN,
    "many-draws": CHAIN | {"draws": 40},
}
BIASED = ("clicks", "stars", "stars-map")


def tables(whole_ids=False):
    """Ten users who chose early, and three who came after the split; the last item is nobody's."""
    rng = np.random.default_rng(0)
    rows = [(user, j, 0.0) for n, user in enumerate(EARLY) for j in rng.permutation(16 + n % 8)[:8]]
    rows += [(user, j, 1.0) for user in LATE for j in rng.permutation(N_ITEMS - 1)[:6]]
    users, items, times = map(list, zip(*rows, strict=True))
    of_user = {user: 7 * n - 20 if whole_ids else user for n, user in enumerate([*EARLY, *LATE])}
    of_item = [3 * j - 9 if whole_ids else f"商品-{j}" for j in range(N_ITEMS)]
    pairs = {"user": [of_user[user] for user in users], "item": [of_item[j] for j in items], "time": times}
    pairs["rating"] = rng.integers(1, 6, len(rows)).astype(float)
    texts = [" ".join(rng.choice(WORDS, 7)) for _ in range(N_ITEMS)]
    return pairs, {"item": of_item, "text": texts, "title": [f"题 {j}" for j in range(N_ITEMS)]}


def fitted(kind, whole_ids=False, **more):
    pairs, items = tables(whole_ids)
    dataset = from_frames(pairs, items, ratings="stars" if kind.startswith("stars") else "clicks")
    return inference.fit(dataset, by_time(dataset, 0.1), **({} if "draws" in kind else SMALL) | KINDS[kind] | more)


@pytest.fixture(scope="module")
def fits():
    made = {}
    return lambda kind: made[kind] if kind in made else made.setdefault(kind, fitted(kind))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    fitted("map", out=out)
    return out


@pytest.fixture
def call(answer):
    return lambda *argv: answer(main, *argv)


def ranked_by_files(folder, keep_test=False):
    """All candidates of every user by their inner products, by pandas and numpy from the Parquet files alone."""
    users, items, seen = (pd.read_parquet(folder / f"{name}.parquet") for name in ("users", "items", "seen"))
    scores = pd.DataFrame(np.stack(users["vector"]) @ np.stack(items["vector"]).T, users["id"], items["id"])
    if keep_test:
        seen = seen[~seen["held_out"]]
    left_out = seen.groupby("user")["item"].agg(list)
    return {
        user: row.drop(left_out.get(user, [])).sort_values(ascending=False, kind="stable")
        for user, row in scores.iterrows()
    }


def check(ranked, table):
    """The lists are the same, but for items whose scores are equal as far as float32 tells."""
    assert set(ranked) == set(table["user"])
    clear = 0
    for user, theirs in table.groupby("user"):
        mine = ranked[user]
        np.testing.assert_allclose(mine[theirs["item"]], theirs["score"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mine[theirs["item"]], mine.head(len(theirs)), rtol=1e-5, atol=1e-5)
        gaps = -np.diff(mine.to_numpy(), prepend=np.inf, append=-np.inf) > 1e-5
        apart = (gaps[:-1] & gaps[1:])[: len(theirs)]
        assert (mine.index[: len(theirs)][apart] == theirs["item"].to_numpy()[apart]).all()
        clear += apart.sum()
    assert clear >= len(table) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_the_files_alone_are_those_of_the_package(fits, kind, tmp_path):
    fit = fits(kind)
    export_factors(fit, tmp_path / "out")
    for keep_test in (False, True):
        table = recommend(fit, fit.dataset.user_ids, 9, keep_test=keep_test)
        assert set(table.loc[table["user"].isin(LATE), "origin"]) == {"average"}
        check(ranked_by_files(tmp_path / "out", keep_test), table)


@pytest.mark.parametrize("kind", KINDS)
def test_the_arrays_are_those_of_the_posterior(fits, kind):
    fit, found = fits(kind), factors_of(fits(kind))
    late = fit.dataset.user_rows(LATE)
    assert (found.users[late] == found.average_user).all()
    assert sorted(set(found.origins)) == ["average", "fit"] and found.groups[-1] == "cold"
    assert {array.dtype for array in (found.users, found.items, found.average_user)} == {np.dtype(np.float32)}
    assert found.titles[3] == "题 3"
    if kind == "pmf":
        assert found.content is None
    else:
        np.testing.assert_allclose(found.content, fit.posterior.z_loc, rtol=1e-6)
    assert (found.user_variances is None) is (fit.posterior.is_point or "draws" in kind)
    biased = fit.posterior.v_pad is not None
    assert biased is (kind in BIASED)
    assert sum(n for n, _, _ in found.columns) == found.width
    if biased:
        known = np.setdiff1d(np.arange(13), late)
        np.testing.assert_allclose(found.users[known, -2], fit.posterior.biases()["user"][0][known], rtol=1e-6)
        np.testing.assert_allclose(found.items[:, -1], fit.posterior.biases()["item"][0], rtol=1e-6)
        assert (found.users[:, -1] == 1).all() and (found.items[:, -2] == 1).all()
        assert found.width == 5


@pytest.mark.parametrize("kind", ["mean-field", "full", "structured", "clicks", "stars"])
def test_variances_are_the_diagonals_of_the_covariances(fits, kind):
    fit, found = fits(kind), factors_of(fits(kind))
    for side, variances in (("u", found.user_variances), ("v", found.item_variances)):
        rows = np.arange(10) + 3 if side == "u" else np.arange(N_ITEMS)
        covariances = fit.posterior.covariance(side, rows).diagonal(dim1=-2, dim2=-1).numpy()
        assert (fit.dataset.user_ids[3:] == sorted(EARLY)).all()
        np.testing.assert_allclose(variances[rows][:, :3], covariances[:, :3], rtol=1e-5)
        assert variances.shape == (getattr(found, "users" if side == "u" else "items")).shape
    average = average_user(fit.posterior, fit.split.train).covariance("u", [0]).diagonal(dim1=-2, dim2=-1)
    np.testing.assert_allclose(found.user_variances[0, :3], average[0, :3], rtol=1e-5)
    if kind in BIASED:
        sds = {side: sd.numpy() for side, (_, sd) in fit.posterior.biases().items()}
        np.testing.assert_allclose(found.user_variances[3:, -2], sds["user"][3:] ** 2, rtol=1e-4)
        np.testing.assert_allclose(found.item_variances[:, -1], sds["item"] ** 2, rtol=1e-4)
        assert not found.user_variances[:, -1].any() and not found.item_variances[:, -2].any()


def test_draws_are_turned_into_no_more_columns_than_the_fewer_rows(fits):
    few, many = factors_of(fits("draws")), factors_of(fits("many-draws"))
    assert many.width == 13 + 1  # users and the average one
    assert few.width == 13 + 1 or few.width == few.columns[0][0]
    assert "turned" in many.columns[0][1]


def test_users_folded_in_and_items_added_are_exported_too(fits, tmp_path):
    fit = fits("full")
    fit = fold_in(fit, ["新", "新", EARLY[2]], ["商品-1", "商品-2", "商品-4"])
    fit = add_items(fit, ["商品-new"], contents={"text": fit.dataset.content.of(["comet nebula sail"])})
    export_factors(fit, tmp_path / "out")
    table = recommend(fit, fit.dataset.user_ids, 9)
    check(ranked_by_files(tmp_path / "out"), table)
    users, items = (pd.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("users", "items"))
    assert set(users.set_index("id")["origin"][["新", EARLY[2]]]) == {"folded in"}
    assert items.set_index("id")["group"]["商品-new"] == "new"


def test_a_run_read_from_its_folder_exports_the_same(run, tmp_path):
    fit = inference.load(run)
    told = export_factors(fit, tmp_path / "out")
    assert told == json.loads((tmp_path / "out" / "export.json").read_text("utf-8"))
    assert told["fingerprints"]["run"] == hashlib.sha256((run / "manifest.json").read_bytes()).hexdigest()
    assert told["fingerprints"]["data"] == fit.dataset.fingerprint()
    assert (told["users"], told["items"], told["width"], told["dtype"]) == (13, N_ITEMS, 3, "float32")
    assert told["columns"] == [{"first": 0, "number": 3, "users": "mean of u", "items": "mean of v"}]
    assert told["files"]["users.parquet"]["vector"] == {"shape": [13, 3], "dtype": "float32"}
    found = factors_of(fit)
    np.testing.assert_array_equal(np.array(told["average_user"], np.float32), found.average_user)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "export.json",
        "items.parquet",
        "seen.parquet",
        "users.parquet",
    ]


def test_a_fit_without_a_folder_has_no_fingerprint_of_a_run(fits, tmp_path):
    assert export_factors(fits("mean-field"), tmp_path / "out")["fingerprints"]["run"] is None


@pytest.mark.parametrize("whole_ids", [False, True])
def test_ids_and_types_go_through_every_reader(whole_ids, tmp_path):
    fit = fitted("stars-map", whole_ids)
    found = factors_of(fit)
    for format in ("parquet", "npz"):
        export_factors(fit, tmp_path / format, format)
    for side, ids, vectors in (("users", found.user_ids, found.users), ("items", found.item_ids, found.items)):
        path = tmp_path / "parquet" / f"{side}.parquet"
        schema = pq.read_schema(path)
        assert (schema.field("vector").type.list_size, str(schema.field("vector").type.value_type)) == (5, "float")
        by_pandas, by_polars = pd.read_parquet(path), pl.read_parquet(path)
        assert by_pandas["id"].tolist() == by_polars["id"].to_list() == ids.tolist()
        np.testing.assert_array_equal(np.stack(by_pandas["vector"]), vectors)
        np.testing.assert_array_equal(by_polars["vector"].to_numpy(), vectors)
        with np.load(tmp_path / "npz" / "factors.npz", allow_pickle=False) as arrays:
            assert arrays[f"{side[:-1]}_ids"].tolist() == ids.tolist()
            np.testing.assert_array_equal(arrays[side], vectors)
            assert arrays[f"{side[:-1]}_ids"].dtype.kind == ("i" if whole_ids else "U")
    with np.load(tmp_path / "npz" / "factors.npz", allow_pickle=False) as arrays:
        assert arrays["titles"].tolist() == fit.dataset.titles.tolist()
        seen = pd.read_parquet(tmp_path / "parquet" / "seen.parquet")
        assert arrays["user_ids"][arrays["seen"][:, 0]].tolist() == seen["user"].tolist()
        assert arrays["item_ids"][arrays["seen"][:, 1]].tolist() == seen["item"].tolist()
        assert arrays["held_out"].tolist() == seen["held_out"].tolist()
        assert arrays["held_out"].sum() == len(fit.split.test)


def test_npz_refuses_an_id_that_it_would_change(tmp_path):
    fit = fitted("map")
    ids = fit.dataset.user_ids.copy()
    ids[0] = "a\0"
    fit.dataset = dataclasses.replace(fit.dataset, user_ids=ids)
    with pytest.raises(InputError, match=r"ids of users end in a NUL .* take --format parquet"):
        export_factors(fit, tmp_path / "out", "npz")
    assert not list(tmp_path.iterdir())
    export_factors(fit, tmp_path / "out")
    assert pd.read_parquet(tmp_path / "out" / "users.parquet")["id"][0] == "a\0"


def test_an_index_of_faiss_gives_the_lists(fits, tmp_path):
    faiss = pytest.importorskip("faiss")
    for kind in ("stars", "full"):
        fit, out = fits(kind), tmp_path / kind
        told = export_factors(fit, out, "faiss")
        assert told["files"]["items.faiss"] == {"vector": {"shape": [N_ITEMS, told["width"]], "dtype": "float32"}}
        index = faiss.read_index(str(out / "items.faiss"))
        users, items = (pd.read_parquet(out / f"{name}.parquet") for name in ("users", "items"))
        assert index.metric_type == faiss.METRIC_INNER_PRODUCT and "vector" not in items
        scores, rows = index.search(np.stack(users["vector"]), 6)
        table = recommend(fit, users["id"], 6, keep_seen=True)
        assert items["id"].to_numpy()[rows].ravel().tolist() == table["item"].tolist()
        np.testing.assert_allclose(scores.ravel(), table["score"], rtol=1e-4, atol=1e-5)


class Index:
    """What is asked of an index of faiss."""

    def __init__(self, width):
        self.width = width

    def add(self, vectors):
        assert vectors.dtype == np.float32 and vectors.flags.c_contiguous
        self.vectors = vectors


def test_the_index_holds_the_vectors_of_the_items_in_their_order(fits, tmp_path, monkeypatch):
    faiss = ModuleType("faiss")
    faiss.IndexFlatIP = Index
    faiss.serialize_index = lambda index: np.frombuffer(index.vectors.tobytes(), np.uint8)
    monkeypatch.setitem(sys.modules, "faiss", faiss)
    export_factors(fits("full"), tmp_path / "out", "faiss")
    items = pd.read_parquet(tmp_path / "out" / "items.parquet")
    stored = np.fromfile(tmp_path / "out" / "items.faiss", np.float32).reshape(N_ITEMS, 3)
    np.testing.assert_array_equal(stored, factors_of(fits("full")).items)
    assert items["id"].tolist() == fits("full").dataset.item_ids.tolist() and "vector" not in items


def test_without_faiss_it_is_said_how_to_install_it(run, fits, tmp_path, call, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MachineError, match="pip install faiss-cpu"):
        export_factors(fits("full"), tmp_path / "out", "faiss")
    code, out, err = call(run, "--format", "faiss", "--out", tmp_path / "out")
    assert (code, out) == (1, "") and err == (
        "error: --format faiss needs the package faiss-cpu; install it with: pip install faiss-cpu\n"
    )
    assert not list(tmp_path.iterdir())


def test_an_export_is_replaced_whole_or_not_at_all(run, tmp_path, call, monkeypatch):
    out = tmp_path / "out"
    code, text, err = call(run, "--out", out)
    assert (code, err) == (0, "") and "users.parquet" in text and "13 x 3" in text
    assert call(run, "--out", out)[::2] == (
        2,
        f"error: {out}: exists already; choose another --out, or replace it with --overwrite\n",
    )
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("inference.exporting.folder.manifest_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_factors(inference.load(run), out, "npz", overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert call(run, "--out", out, "--format", "npz", "--overwrite")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "factors.npz"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_else_is_replaced(run, tmp_path, call):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    for out in (mine, run, mine / "thesis.tex"):
        code, _, err = call(run, "--out", out, "--overwrite")
        assert code == 2 and "is not a folder of this command" in err
    code, _, err = call(run, "--out", tmp_path / "none" / "out")
    assert code == 2 and "no such folder" in err
    assert (mine / "thesis.tex").read_text() == "x" and (run / "manifest.json").is_file()


def test_without_out_it_is_shown_what_there_would_be(run, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(run, "--format", "npz")
    assert (code, err) == (0, "") and "no files, --out FOLDER writes them" in out and "user_ids" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "csv"), "--format is 'csv', but it must be one of parquet, npz, faiss"),
        (("--top", "3"), "unknown option --top"),
    ],
)
def test_a_wrong_word_is_answered_in_one_line(run, call, words, said):
    code, _, err = call(run, *words)
    assert code == 2 and said in err and err.count("\n") == 1


def test_an_unknown_format_is_refused_from_python(fits, tmp_path):
    with pytest.raises(InputError, match="--format is 'pickle'"):
        export_factors(fits("full"), tmp_path / "out", "pickle")


def test_a_run_without_users_is_refused(run, tmp_path, call):
    from pyro_cvae.runs import export_without_users

    export_without_users(run, tmp_path / "given")
    code, _, err = call(tmp_path / "given", "--out", tmp_path / "out")
    assert code == 2 and "the run was exported without users" in err
    assert not (tmp_path / "out").exists()
