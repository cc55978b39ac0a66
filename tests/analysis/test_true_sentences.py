"""What pages and tables say is true of the very fit: of models without contents, of images, of stars, of counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

import inference
from analysis.calibrated.tables import sheets
from analysis.comparison.options import CompareOptions
from analysis.comparison.side_by_side import compare
from analysis.comparison.tables import tables
from analysis.error_correlation import ErrorCorrelation
from analysis.page.making import report
from analysis.page.options import ReportOptions
from analysis.soundness.diagnosis import diagnose
from analysis.soundness.slopes import slopes, told_hits, told_slope
from inference.reasons import told_rests
from pyro_cvae.data.contents import Images
from pyro_cvae.data.simulated import simulated, simulated_stars

SIZES = {"n_users": 30, "n_items": 40, "n_words": 30, "seed": 1}
SMALL = {"factors": 2, "hidden": (5,), "pretrain_epochs": 1, "epochs": 1, "quiet": True, "threads": 1}
CHECKS = {"n_users": 5, "draws": 100, "check_users": 5, "check_texts": 5, "check_draws": 10}
FITS = {
    "pmf": {"model": "pmf", "mode": "bayes"},
    "ctr": {"model": "ctr", "mode": "map"},
    "deepmusic": {"model": "deepmusic", "mode": "map"},
    "images": {"mode": "bayes", "content": "pictures", "content_likelihood": "normal"},
    "items": {"mode": "map", "split": "items"},
    "poisson": {"method": "svi", "mode": "bayes", "rating_likelihood": "poisson"},
    "mcmc": {"method": "mcmc", "warmup": 2, "draws": 4, "chains": 1},
}


def clicks():
    pictures = np.random.default_rng(0).random((SIZES["n_items"], 1, 6, 6)).astype(np.float32)
    dataset = simulated(**SIZES)
    return dataclasses.replace(dataset, others={"pictures": Images(pictures, np.ones(len(pictures), bool))})


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    """The fits by name, each with its run folder."""
    folder, dataset = tmp_path_factory.mktemp("runs"), clicks()
    given = {"method": "coordinate", **SMALL, "train_per_user": 3}
    known = {name: {k: v for k, v in (given | more).items()} for name, more in FITS.items()}
    known["mcmc"].pop("epochs")
    known["items"].pop("train_per_user")
    return {name: inference.fit(dataset, **options, out=folder / name) for name, options in known.items()}


@pytest.fixture(scope="module")
def pages(fits):
    return {name: report(ReportOptions((str(fit.path),), draws=20, users=1)) for name, fit in fits.items()}


def test_a_page_speaks_of_the_contents_that_the_model_reads(pages):
    assert "multinomial" not in pages["pmf"] and "can lose its content" not in pages["pmf"]
    assert pages["pmf"].count("the model reads none") == 2
    for name in ("ctr", "deepmusic"):
        assert "the model reads none" not in pages[name] and "can lose its content" not in pages[name]
        assert "no posterior that could collapse" in pages[name]
    assert "topics" not in pages["ctr"] and "layers" not in pages["ctr"] and "text, multinomial" in pages["ctr"]
    assert "multinomial" not in pages["deepmusic"] and "tied layers" not in pages["deepmusic"]
    assert "pictures, normal likelihood, layers 5" in pages["images"] and "can lose its content" in pages["images"]
    for name in ("images", "items"):
        assert "what the text" not in pages[name] and "text says" not in pages[name].lower()


def test_what_is_no_remedy_is_not_offered(fits, pages):
    for name in ("pmf", "ctr", "deepmusic", "poisson"):
        assert "--guide structured" not in pages[name].replace("--guide structured --", "")
    assert "--guide structured" in pages["images"] and "--guide structured" in pages["items"]
    assert all("--reserve" not in page for page in pages.values())
    for name, offered in (("images", True), ("poisson", False), ("pmf", False)):
        said = compare(CompareOptions((str(fits[name].path),), users=5, draws=4, resamples=20))
        assert any("--guide structured" in note for note in said.notes) == offered
    assert "--sweeps" in told_rests(1, 1, "coordinate")[0] and "--sweeps" not in told_rests(1, 1, "svi")[0]


def test_items_without_ratings_are_nothing_to_a_model_without_contents(fits):
    heads = {}
    for name in ("pmf", "images"):
        result = compare(CompareOptions((str(fits[name].path),), users=5, draws=4, resamples=20))
        heads[name] = str([part.columns for part in tables(result) if not isinstance(part, str)])
    assert "content only" in heads["images"] and "content only" not in heads["pmf"]


def test_objectives_of_a_model_with_contents_and_of_one_without_are_said_to_differ(fits):
    both = (str(fits["pmf"].path), str(fits["images"].path))
    said = compare(CompareOptions(both, users=5, draws=4, resamples=20)).notes
    assert any("ELBOs are of different things" in note and "contents" in note for note in said)


def test_an_objective_of_draws_is_no_elbo(fits):
    first = diagnose(fits["mcmc"], **CHECKS).summary.iloc[0]
    assert first["what"] == "log joint"


def test_a_group_without_test_pairs_has_no_slope(fits):
    table = slopes(fits["items"])
    assert (table["n_pairs"] == 0).any()
    for _, row in table.iterrows():
        assert (told_slope(row) == "-") == (told_hits(row) == "-") == (row["n_pairs"] == 0)
    said = set(diagnose(fits["items"], **CHECKS).summary["what"])
    assert "cold items: listed" in said and "hot items: listed" not in said


def test_one_user_gives_a_slope_without_an_error():
    fit = inference.fit(simulated(**SIZES | {"n_users": 1}), method="coordinate", mode="map", **SMALL, train_per_user=2)
    told = [told_slope(row) for _, row in slopes(fit).iterrows() if row["n_pairs"]]
    assert told and not any("±" in one for one in told)


def test_diagnostics_of_stars_do_not_speak_of_clicks(fits):
    stars = inference.fit(
        simulated_stars(**SIZES), method="coordinate", mode="map", **SMALL, rating_likelihood="normal"
    )
    assert not diagnose(stars, **CHECKS).summary["note"].str.contains("click").any()
    assert diagnose(fits["items"], **CHECKS).summary["note"].str.contains("click").any()
    notes = diagnose(fits["deepmusic"], **CHECKS).summary.set_index("what")["note"]
    assert "draws no contents" in notes["texts"]


def test_what_cannot_be_asked_is_a_dash():
    """Of one user there is no standard error, and of few pairs no partial correlation."""
    rows = pd.DataFrame([{"by": "all", "group": "all", "n": 3, "spearman": 0.5, "partial": np.nan}])
    for name in ("spearman", "partial"):
        rows[f"{name}_low"] = rows[f"{name}_high"] = rows[name]
    sheet = sheets([], [], [ErrorCorrelation("few", "full", "matched", 3, 0, rows)])[0]
    assert sheet.rows == [["few", "all (matched)", "3", "0.500 [0.500, 0.500]", "-"]]


def test_lists_of_one_user_have_no_standard_error(tmp_path):
    alone = simulated(**SIZES | {"n_users": 1})
    path = inference.fit(alone, method="coordinate", **SMALL, train_per_user=2, out=tmp_path / "alone").path
    said = [
        part for part in tables(compare(CompareOptions((str(path),), users=5, draws=4))) if not isinstance(part, str)
    ]
    cells = [cell for part in said for row in part.rows for cell in row]
    assert not any("nan" in cell for cell in cells) and "1.000" in cells
