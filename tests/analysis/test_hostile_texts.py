"""Ids, titles and words with control characters and formulas: shown on terminals and pages, whole in files."""

import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import inference
from analysis.plots import figure, save
from tests.strangers import MODULES, SMALL, arguments, catalogue, command

BAD = "\x1b[2J\x1b]8;;http://x\x07\r\x08\x9b31m\u202e"
FORMULAS = ("=HYPERLINK(0)", "+1", "-1+2", "@SUM(1)", "\t=1", " =1", "\uff1d1")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run whose ids, titles and name are a stranger's."""
    folder, dataset = tmp_path_factory.mktemp("hostile"), catalogue()
    titles = [f"{BAD}{FORMULAS[row % len(FORMULAS)]} $\\frac{{ <b>{row}</b>" for row in range(dataset.n_items)]
    items = [f"{FORMULAS[row % len(FORMULAS)]}{BAD}{row}" for row in range(dataset.n_items)]
    users = ["u1", *(f"{BAD}u{row}" for row in range(1, dataset.n_users))]
    ids = {"item_ids": np.array(items, object), "user_ids": np.array(users, object)}
    dataset = replace(dataset, name=f"data{BAD}$", titles=np.array(titles, object), **ids)
    inference.fit(dataset, out=folder / "run", mode="bayes", **SMALL)
    return folder / "run", dataset


@pytest.mark.parametrize("name", MODULES)
def test_no_command_obeys_what_the_data_say(name, hostile, tmp_path):
    run, _ = hostile
    code, out, err = command(name, arguments(name, run, tmp_path))
    assert code == 0, err
    for text in (out, err, *(page.read_text("utf-8") for page in tmp_path.rglob("*.html"))):
        assert not {"\x1b", "\x07", "\x08", "\x9b", "\r", "\u202e"} & set(text)
    if name == "inference.recommend":
        assert r"\x1b[2J\x1b]8;;http://x\x07" in out
    for page in tmp_path.rglob("*.html"):
        assert "<b>" not in page.read_text("utf-8").replace("<b>\n", "").partition("$\\frac")[2][:10]


def test_files_have_ids_and_titles_as_they_are(hostile, tmp_path):
    run, dataset = hostile
    for out in ("plain.csv", "plain.parquet"):
        assert command("inference.recommend", [str(run), "--user", "u1", "--out", str(tmp_path / out)])[0] == 0
        read = pd.read_csv if out.endswith("csv") else pd.read_parquet
        table = read(tmp_path / out)
        assert set(table["item"]) <= set(dataset.item_ids.tolist())
        assert set(table["title"]) <= set(dataset.titles.tolist())


@pytest.mark.parametrize("to", ["file", "pipe"])
def test_with_csv_safe_no_cell_is_a_formula(to, hostile, tmp_path):
    run, dataset = hostile
    argv = [str(run), "--user", "u1", "--top", "18", "--keep-seen", "--csv-safe"]
    out = tmp_path / "safe.csv"
    code, text, err = command(
        "inference.recommend", [*argv, *(["--out", str(out)] if to == "file" else ["--format", "csv"])]
    )
    assert code == 0, err
    if to == "pipe":
        out.write_text(text, "utf-8", newline="")
    table = pd.read_csv(out)
    assert len(table)
    ids = dict.fromkeys(dataset.item_ids.tolist())
    for cell in table["item"]:
        assert cell.startswith("'")
        assert cell[1:] in ids
    assert not table["title"].str.startswith(tuple("=+-@\t ")).any()
    assert pd.api.types.is_numeric_dtype(table["score"])


def test_a_dollar_in_a_name_is_no_formula_of_a_figure(tmp_path):
    drawn, axes = figure()
    axes[0, 0].plot([1, 2], label="\x1b[2J $\\frac{ $")
    axes[0, 0].set_title("$\\nothing$")
    axes[0, 0].legend()
    assert os.path.getsize(save(drawn, tmp_path / "x.png"))
    assert axes[0, 0].get_legend().get_texts()[0].get_text() == "\\x1b[2J $\\frac{ $"
