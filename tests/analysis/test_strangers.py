"""Run folders with a right manifest over wrong content: one line and exit code 2, or an answer; never a traceback."""

import contextlib
import copy
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import inference
from pyro_cvae.data import files
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError, PyroCvaeError
from pyro_cvae.runs import open_run
from tests.strangers import MODULES, SMALL, arguments, catalogue, command, edit_json, edit_table, edit_tensors, seal

KINDS: dict[str, dict[str, Any]] = {
    "point": {"mode": "map", "validation": 0.3},
    "mean-field": {"rating_likelihood": "normal", "content": "words", "content_likelihood": "tokens"},
    "structured": {"guide": "structured", "biases": "on"},
    "full": {"method": "coordinate", "sweeps": 1, "content_likelihood": "product",
             "content_likelihood_args": {"text": "pseudo-multinomial", "sketch": "normal"}},
    "draws": {"method": "mcmc", "warmup": 1, "draws": 2, "chains": 2},
}  # fmt: skip
VALUES: list[Any] = [None, True, -1, 0, 2, 10**30, 10**400, 1.5, float("nan"), float("inf"), "", "x", "\x1b[2J", [],
                     [1], ["x"], {}, {"x": 1}, [[]], [{"x": []}]]  # fmt: skip


HOWS = ("shorter", "wider", "nan", "huge", "negative", "whole", "bool", "half", "empty", "flat", "rename")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A small run of each kind of posterior; networks of words, tokens, and several contents."""
    folder = tmp_path_factory.mktemp("runs")
    for kind, options in KINDS.items():
        dataset = catalogue()
        if kind == "mean-field":
            rng, pairs = np.random.default_rng(0), dataset.interactions
            from dataclasses import replace

            dataset = replace(dataset, interactions=replace(pairs, ratings=rng.integers(1, 6, len(pairs)) * 1.0))
        inference.fit(dataset, out=folder / kind, **SMALL | {"mode": "bayes"} | options)
    return folder


def opened(run: Path) -> str:
    """The line that opening it ends in, or nothing where it opens; anything but one line naming the run is an error."""
    try:
        fit = inference.load(run)
        open_run(run).items()
    except InputError as error:
        assert "\n" not in str(error)
        assert "\x1b" not in str(error)
        assert str(error).startswith(str(run)), str(error)
        return str(error)
    return "" if fit else "nothing"


def fingerprint(kind: Any, folder: Path) -> str:
    """That of the files that are there, whatever they state; nothing where they cannot be read."""
    seen: list[str] = []
    digest = files.digest
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(InputError):
        patch.setattr(files, "digest", lambda parts: seen.append(digest(parts)) or seen[-1])
        kind.load(folder)
    return seen[-1] if seen else ""


def resealed(run: Path) -> None:
    """The manifest over what is there now, and the fingerprints too, as far as data and split can be read."""
    data, split = run / "data" / "dataset", run / "data" / "split"
    for folder, kind, file in ((data, Dataset, "dataset.json"), (split, Split, "split.json")):
        new = fingerprint(kind, folder)
        if not new:
            continue
        edit_json(
            folder / file, lambda facts, new=new: facts.update(fingerprint=new) if "fingerprint" in facts else None
        )
        name = "data" if kind is Dataset else "split"

        def state(config, name=name, new=new):
            if isinstance(config, dict) and isinstance(config.get("fingerprints"), dict):
                config["fingerprints"][name] = new

        edit_json(run / "config.json", state)
    seal(run)


# --- what must be refused --------------------------------------------------------------------------------------------

REFUSED = {
    "a missing v_loc": ("point", "posterior.safetensors", lambda t: t.pop("v_loc")),
    "v_loc of too few items": ("point", "posterior.safetensors", lambda t: t.update(v_loc=t["v_loc"][:-1])),
    "u_loc of other factors": ("point", "posterior.safetensors", lambda t: t.update(u_loc=t["u_loc"][:, :1])),
    "u_loc of whole numbers": ("point", "posterior.safetensors", lambda t: t.update(u_loc=t["u_loc"].long())),
    "u_loc of half precision": ("point", "posterior.safetensors", lambda t: t.update(u_loc=t["u_loc"].bfloat16())),
    "a NaN": ("point", "posterior.safetensors", lambda t: t["z_loc"].fill_(float("nan"))),
    "an infinity": ("point", "posterior.safetensors", lambda t: t["u_loc"].fill_(float("inf"))),
    "a negative z_scale": ("point", "posterior.safetensors", lambda t: t["z_scale"].neg_()),
    "no lambda_v": ("point", "posterior.safetensors", lambda t: t.pop("lambda_v")),
    "another kind": ("point", "posterior.safetensors", lambda t: t.update(u_scale=torch.ones_like(t["u_loc"]))),
    "points for a posterior": ("mean-field", "posterior.safetensors", lambda t: t.pop("v_scale")),
    "a block of no user": ("full", "posterior.safetensors", lambda t: t["u_block"].add_(10**9)),
    "no covariance": ("full", "posterior.safetensors", lambda t: t["u_covariance"].neg_()),
    "a lopsided covariance": ("full", "posterior.safetensors", lambda t: t["u_covariance"][:, 0, 1].add_(9)),
    "no v_pad": ("structured", "posterior.safetensors", lambda t: t.pop("v_pad")),
    "broken chains": ("draws", "posterior.safetensors", lambda t: t.update(n_chains=torch.tensor(3))),
    "no chain": ("draws", "posterior.safetensors", lambda t: t.update(n_chains=torch.tensor(0))),
    "draws of other lengths": ("draws", "posterior.safetensors", lambda t: t.update(v_draws=t["v_draws"][:-1])),
    "a network's shape": ("point", "posterior.safetensors",
                          lambda t: t.update({k: v[:-1] for k, v in t.items() if k.endswith("layers.0.bias")}
                                             or {"network.x": torch.ones(1)})),
    "a network's NaN": ("point", "posterior.safetensors",
                        lambda t: [v.fill_(float("nan")) for k, v in t.items() if k.startswith("network.")]),
    "a network's missing part": ("point", "posterior.safetensors",
                                 lambda t: t.pop(next(k for k in t if k.startswith("network."))).sum()),
    "an unknown option": ("point", "config.json", lambda c: c["options"].update(nonsense=1)),
    "an option of another type": ("point", "config.json", lambda c: c["options"].update(factors="many")),
    "a size below 0": ("point", "config.json", lambda c: c["options"].update(factors=-3)),
    "a billion factors": ("point", "config.json", lambda c: c["options"].update(factors=10**9)),
    "layers beyond memory": ("point", "config.json", lambda c: c["options"].update(hidden=[10**9, 10**9])),
    "layers beyond numbers": ("point", "config.json", lambda c: c["options"].update(hidden=[10**18])),
    "no layers": ("point", "config.json", lambda c: c["options"].update(hidden=[])),
    "another type of numbers": ("point", "config.json", lambda c: c["options"].update(dtype="float64")),
    "a type of torch": ("point", "config.json", lambda c: c["options"].update(dtype="load")),
    "no command": ("point", "config.json", lambda c: c.update(command="system")),
    "options that are none": ("point", "config.json", lambda c: c.update(options=[1])),
    "a config that is none": ("point", "config.json", lambda c: [c]),
    "a list for metrics": ("point", "metrics.json", lambda m: [m]),
    "a precision of text": ("point", "metrics.json", lambda m: m["precisions"].update(lambda_u="x")),
    "a precision of 0": ("point", "metrics.json", lambda m: m["precisions"].update(lambda_v=0)),
    "a best epoch beyond": ("point", "metrics.json", lambda m: m.update(best_epoch=99)),
    "no scalings": ("point", "config.json", lambda c: c["scalings"].clear()),
    "a scaling of other words": ("point", "config.json", lambda c: c["scalings"]["inputs"].update(factors=[1.0])),
    "a scaling of NaN": ("point", "config.json",
                         lambda c: c["scalings"]["inputs"].update(factors=[float("nan")] * 9)),
    "a likelihood's argument": ("full", "config.json",
                                lambda c: c["options"]["content_likelihood_args"].update({"text.subsample": "x"})),
    "a part that is no content": ("full", "config.json",
                                  lambda c: c["options"]["content_likelihood_args"].update(other="normal")),
    "another likelihood": ("point", "config.json", lambda c: c["options"].update(content_likelihood="tokens")),
    "another network": ("point", "config.json", lambda c: c["options"].update(network="recurrent")),
    "other data": ("point", "config.json", lambda c: c["fingerprints"].update(data="0" * 64)),
    "items without ids": ("point", "data/dataset/items.parquet", lambda t: t.pop("id") and None),
    "ids of other length": ("point", "data/dataset/items.parquet", lambda t: {k: v.slice(1) for k, v in t.items()}),
    "ids that are dates": ("point", "data/dataset/users.parquet",
                           lambda t: t.update(id=pa.array(range(len(t["id"])), pa.timestamp("s")))),
    "ids that are missing": ("point", "data/dataset/users.parquet", lambda t: t.update(id=pa.nulls(len(t["id"])))),
    "titles of bytes": ("point", "data/dataset/items.parquet", lambda t: t.update(title=t["id"].cast("binary"))),
    "a user beyond": ("point", "data/dataset/interactions.parquet",
                      lambda t: t.update(users=pa.array([10**6] * len(t["users"])))),
    "a user below": ("point", "data/dataset/interactions.parquet",
                     lambda t: t.update(users=pa.array([-1] * len(t["users"])))),
    "users of text": ("point", "data/dataset/interactions.parquet",
                      lambda t: t.update(users=t["users"].cast("string"))),
    "users of fractions": ("point", "data/dataset/interactions.parquet",
                           lambda t: t.update(users=t["users"].cast("float64"))),
    "a rating of NaN": ("point", "data/dataset/interactions.parquet",
                        lambda t: t.update(ratings=pa.array([float("nan")] * len(t["users"])))),
    "no ratings": ("point", "data/dataset/interactions.parquet", lambda t: t.pop("ratings") and None),
    "words beyond": ("point", "data/dataset/content.safetensors", lambda t: t["indices"].add_(1000)),
    "words below": ("point", "data/dataset/content.safetensors", lambda t: t["indices"].sub_(1000)),
    "rows that run back": ("point", "data/dataset/content.safetensors", lambda t: t.update(indptr=t["indptr"].flip(0))),
    "too few rows": ("point", "data/dataset/content.safetensors", lambda t: t.update(indptr=t["indptr"][:-1])),
    "counts below 0": ("point", "data/dataset/content.safetensors", lambda t: t["data"].neg_()),
    "no counts": ("point", "data/dataset/content.safetensors", lambda t: t.pop("data")),
    "counts of numbers that numpy has not": ("point", "data/dataset/content.safetensors",
                                             lambda t: t.update(data=t["data"].bfloat16())),
    "tokens beyond": ("mean-field", "data/dataset/content-words.safetensors", lambda t: t["tokens"].add_(99)),
    "truth of another size": ("point", "data/dataset/truth.safetensors", lambda t: t.update(scores=t["scores"][1:])),
    "a billion users": ("point", "data/dataset/dataset.json", lambda d: d.update(n_users=10**9)),
    "fewer words": ("point", "data/dataset/dataset.json", lambda d: d.update(vocabulary=d["vocabulary"][1:])),
    "words that are numbers": ("point", "data/dataset/dataset.json", lambda d: d.update(vocabulary=[1, 2])),
    "a pattern that is none": ("point", "data/dataset/dataset.json",
                               lambda d: d["vectorizer"].update(token_pattern="(((")),
    "a pattern that never ends": ("point", "data/dataset/dataset.json",
                                  lambda d: d["vectorizer"].update(token_pattern="(a+)+$")),
    "a kind of content": ("point", "data/dataset/dataset.json", lambda d: d["others"]["words"].update(kind="system")),
    "a content without a kind": ("point", "data/dataset/dataset.json",
                                 lambda d: d["others"]["words"].pop("kind") and None),
    "a split beyond the catalogue": ("point", "data/split/split.json", lambda s: s.update(n_items=99, n_users=99)),
    "a smaller split": ("point", "data/split/split.json", lambda s: s.update(n_items=2)),
    "a part twice": ("point", "data/split/split.json", lambda s: s.update(parts=["train", "train"])),
    "tuning users beyond": ("point", "data/split/split.json", lambda s: s.update(tuning_users=[99])),
    "tuning users that are none": ("point", "data/split/split.json", lambda s: s.update(tuning_users=["x"])),
    "no protocol": ("point", "data/split/split.json", lambda s: s.update(protocol="x")),
    "test pairs in training": ("point", "data/split/test.parquet", None),
    "a history of text": ("point", "history.csv", "epoch,phase,seconds\n1,content,soon\n"),
    "a history that jumps": ("point", "history.csv", "epoch,phase\n1,content\n7,joint\n"),
    "a ragged history": ("point", "history.csv", "epoch,phase\n1\n"),
    "a history of one name": ("point", "history.csv", "epoch,epoch,phase\n1,1,content\n"),
    "a history of bytes": ("point", "history.csv", b"\xff\xfe\x00epoch"),
    "an endless field": ("point", "history.csv", 'epoch,phase\n1,"' + "x" * 300_000 + '"\n'),
}  # fmt: skip


def edited(run: Path, name: str, change: Any) -> None:
    path = run / name
    if change is None:
        shutil.copy(run / "data/split/train.parquet", path)
    elif isinstance(change, str | bytes):
        path.write_bytes(change.encode() if isinstance(change, str) else change)
    else:
        edit = {".json": edit_json, ".parquet": edit_table, ".safetensors": edit_tensors}[path.suffix]
        edit(path, change)


@pytest.mark.parametrize("what", REFUSED)
def test_content_that_makes_no_sense_is_one_line(what, runs, tmp_path):
    kind, name, change = REFUSED[what]
    run = tmp_path / "run"
    shutil.copytree(runs / kind, run)
    edited(run, name, change)
    seal(run) if what == "other data" else resealed(run)
    text = opened(run)
    assert text, "it opens"
    assert re.match(rf"{re.escape(str(run))}/[\w./-]+: ", text), text


# --- whatever is changed ---------------------------------------------------------------------------------------------


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Places of all entries of a JSON value, at most two of each list."""
    found = [path]
    if isinstance(value, dict):
        found += [place for key, entry in value.items() for place in leaves(entry, (*path, key))]
    elif isinstance(value, list):
        found += [place for k, entry in list(enumerate(value))[:2] for place in leaves(entry, (*path, k))]
    return found


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """The value with another at that place; ``...`` takes it away."""
    value = copy.deepcopy(value)
    if not place:
        return None if new is ... else new
    inner = value
    for step in place[:-1]:
        inner = inner[step]
    if new is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return value


def one_change(run: Path, rng: random.Random) -> str:
    """Change one thing in one file of a run at random; what it was, in words."""
    path = rng.choice(sorted(p for p in run.rglob("*") if p.is_file() and p.name != "manifest.json"))
    name = path.relative_to(run).as_posix()
    if path.suffix == ".json":
        value = json.loads(path.read_text())
        place, new = rng.choice(leaves(value)), rng.choice([..., *VALUES])
        path.write_text(json.dumps(changed(value, place, new), indent=1) + "\n")
        return f"{name} {place} {str(new)[:20]}"
    if path.suffix == ".csv":
        lines = path.read_text().splitlines()
        row = rng.randrange(len(lines))
        cells = lines[row].split(",")
        column, new = (
            rng.randrange(len(cells)),
            rng.choice(["", "x", "-1", "nan", "1e999", '"', "\x1b[2J", "1,2"]),
        )
        cells[column] = new
        lines[row] = ",".join(cells)
        path.write_text("\n".join(lines) + "\n")
        return f"{name} {row} {column} {new!r}"
    if path.suffix == ".parquet":
        said: list[str] = []

        def change(columns: dict[str, Any]) -> dict[str, Any]:
            column, how = rng.choice(sorted(columns)), rng.choice(["drop", "null", "text", "float", "shift", "binary"])
            said.append(f"{column} {how}")
            values, n = columns[column], len(columns[column])
            if how == "drop":
                del columns[column]
            elif how == "null":
                columns[column] = pa.nulls(n, values.type)
            elif how == "text":
                columns[column] = pa.array(["\x1b[2J" + str(k) for k in range(n)])
            elif how == "float":
                columns[column] = pa.array([rng.choice([0.5, -1.0, float("nan"), 1e300]) for _ in range(n)])
            elif how == "shift":
                columns[column] = pa.array([rng.randrange(-5, 50) for _ in range(n)])
            else:
                columns[column] = pa.array([b"\xff"] * n)
            return columns or {"nothing": pa.nulls(1)}

        edit_table(path, change)
        return f"{name} {said}"
    if path.suffix == ".npy":
        others = [np.zeros(3), np.full((18, 3), np.nan), np.zeros((18, 3), int), np.ones((2, 2))]
        np.save(path, others[rng.randrange(4)])
        return name
    told: list[str] = []

    def change(tensors: dict[str, Any]) -> None:
        key = rng.choice(sorted(tensors))
        how = rng.choice(("drop", *HOWS))
        told.append(f"{key} {how}")
        t = tensors.pop(key)
        new = {
            "shorter": t[:-1] if t.dim() else t, "wider": t.unsqueeze(-1), "huge": (t.double() * 1e300).to(t.dtype),
            "negative": -t if t.dtype != torch.bool else ~t, "whole": t.long(), "bool": t.bool(), "half": t.half(),
            "nan": torch.full_like(t, float("nan")) if t.is_floating_point() else t - 1 if t.dtype != torch.bool else t,
            "empty": t.new_zeros(0), "flat": t.flatten(), "rename": t,
        }.get(how)  # fmt: skip
        if new is not None:
            tensors[key if how != "rename" else f"{key}.x"] = new

    edit_tensors(path, change)
    return f"{name} {told}"


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_changed_a_run_opens_or_is_refused_in_one_line(kind, runs, tmp_path):
    """Seeded changes of one thing in one file; where a run still opens, a command, too, answers or refuses."""
    rng, n_refused = random.Random(kind), 0
    for number in range(40):
        run = tmp_path / f"run-{number}"
        shutil.copytree(runs / kind, run)
        said = one_change(run, rng)
        try:
            resealed(run)
            refused = opened(run)
            if not refused and number % 4 == 0:
                module = MODULES[number // 4 % len(MODULES)]
                code, _, err = command(module, arguments(module, run, tmp_path))
                assert code in (0, 1, 2), err
                for out in tmp_path.iterdir():
                    if not out.name.startswith("run-"):
                        shutil.rmtree(out) if out.is_dir() else out.unlink()
        except PyroCvaeError:
            raise
        except Exception as error:
            raise AssertionError(f"{kind} {number}: {said}: {type(error).__name__}: {error}") from error
        n_refused += bool(refused)
        shutil.rmtree(run)
    assert n_refused > 12
