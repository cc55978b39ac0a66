"""The paper's study: what is fitted anew, what is kept, how sentences are judged, and what is written."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import ttest_1samp

from analysis.over_users import Interval
from analysis.paper import main
from analysis.replication import fits, methods, running, study
from analysis.replication.claims import CLAIMS, ROLES, Claim, Contrast, less
from analysis.replication.contents import load_study, side_by_side
from analysis.replication.figures import COLORS, MARKERS
from analysis.replication.fits import best_lists, rows_of
from analysis.replication.jobs import Job, _known, grouped, identity, jobs_of
from analysis.replication.methods import COMPARED, METHODS, OVER_FACTORS, OVER_LAMBDA_R, Method, check_methods
from analysis.replication.options import PARTS, PaperOptions
from analysis.replication.qualitative import as_markdown, choose_users, examples
from analysis.replication.running import finished, in_words, run, seconds_left
from analysis.replication.store import Store
from analysis.replication.summary import Results, Term, t_interval, table_of
from analysis.replication.verdicts import NOTHING, SIMILAR, judge, verdicts_on
from analysis.replication.working import jobs_asked, question
from analysis.replication.writing import sheets, verdicts_page
from inference import presets
from inference.average import list_scores
from inference.evaluation.rankings import evaluate, recalls
from inference.fitting import fit_with
from inference.keywords import options_of
from inference.layouts import _aligned
from inference.options import Options
from pyro_cvae.data.content import Content
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import per_user
from pyro_cvae.errors import InputError, run_command
from pyro_cvae.protocol import CUTOFFS

QUICK = {"factors": 4, "hidden": (6,), "pretrain_epochs": 1, "epochs": 1, "sweeps": 1}
TINY = (
    Method("paper", "CVAE, the paper's settings", "paper", QUICK, "CVAE"),
    Method("cdl-paper", "CDL, the paper's settings", "paper", QUICK | {"learning_rate": 0.0}, "CDL", beside=("paper",)),
    Method("tfidf", "TF-IDF cosine", line=":", family="TF-IDF cosine", beside=("paper",)),
)
OVER = tuple(
    Method(
        f"joint-lambda-r-{value:g}",
        f"joint, lambda_r {value:g}",
        "paper",
        QUICK | {"lambda_r": value},
        "joint training",
        at=value,
        beside=("joint-lambda-r-1",),
    )
    for value in (1.0, 100.0)
)


@pytest.fixture(scope="module")
def dataset():
    return simulated(n_users=40, n_items=90, n_words=60, n_factors=4)


@pytest.fixture
def tiny(monkeypatch, dataset):
    """A small data set and quick methods in the place of the study's own."""
    table = {"fig4": TINY, "fig5": TINY, "fig6": OVER, "fig7": OVER[:1], "table1": TINY[:2]}
    monkeypatch.setattr(methods, "METHODS", table)
    monkeypatch.setattr("analysis.replication.figures.METHODS", table)
    monkeypatch.setattr(study, "load_study", lambda data: (dataset, "the data's own words"))


def jobs_on(dataset, chosen=TINY, seeds=(0, 1), sizes=(1,)):
    return [
        Job("simulated", dataset.fingerprint(), p, seed, method) for method in chosen for p in sizes for seed in seeds
    ]


def row_of(job, **numbers):
    recalls = {str(cutoff): 0.1 for cutoff in CUTOFFS}
    return {"key": job.key, "data": "simulated", "fingerprint": job.fingerprint, "per_user": job.per_user,
            "seed": job.seed, "method": job.method.name, "seconds": 1.0, "corrected": recalls, "paper": recalls,
            } | numbers  # fmt: skip


# --- fits and their store ---------------------------------------------------------------------------------------------


def test_a_row_is_that_of_a_fit_by_hand(tmp_path, dataset):
    """Recall by both protocols and precision of a fit, networks kept from another split, against a plain fit."""
    jobs = jobs_on(dataset, TINY[:1])
    first, second = rows_of(jobs, dataset, Store(tmp_path))
    assert (first["pretrained_here"], second["pretrained_here"]) == (True, False)
    split = per_user(dataset, 1, 1)
    fitted = fit_with(dataset, split, options_of("coordinate", "paper", {"mode": "map", "threads": 1, **QUICK}))
    for protocol in ("corrected", "paper"):
        found = evaluate(list_scores(fitted.posterior, split.train), split, cutoffs=(10, *CUTOFFS), protocol=protocol)
        means = found.means()
        assert second[protocol] == {str(cutoff): pytest.approx(means[f"recall@{cutoff}"]) for cutoff in CUTOFFS}
        if protocol == "corrected":
            table = found.per_user
            assert second["precision"] == pytest.approx((table["recall@10"] * table["n_test"]).mean() / 10)
    assert second["peak_mib"] > 10 and second["last"]["content"] < 0
    assert json.loads(json.dumps(second)) == second | {"options": json.loads(json.dumps(second["options"]))}


def test_only_what_is_missing_is_fitted(tmp_path, dataset, tiny, monkeypatch):
    """Some rows are there, the last line is cut off as by a kill: its fit and the others are made, no more."""
    jobs = jobs_on(dataset)
    store = Store(tmp_path)
    for job in jobs[:2]:
        store.add(row_of(job, corrected={str(cutoff): 0.25 for cutoff in CUTOFFS}))
        store.add_lists(job.key, {"users": np.arange(2)})
    with open(store.path, "a") as file:
        file.write(json.dumps(row_of(jobs[2]))[:-40])
    made = []

    def rows(group, *rest):
        for job in group:
            made.append(job.key)
            yield row_of(job)

    monkeypatch.setattr(running, "rows_of", rows)
    options = PaperOptions(("fig4",), ("simulated",), out=str(tmp_path), quiet=True)
    again = Store(tmp_path)
    assert len(again.rows) == 2
    assert run(options, jobs, {"simulated": dataset}, again) == []
    lacking = {job.key for job in jobs[2:]}
    assert set(made) == lacking and len(made) == len(lacking)
    last = Store(tmp_path)
    assert set(last.rows) == {job.key for job in jobs}
    assert last.rows[jobs[0].key]["corrected"]["50"] == 0.25
    made.clear()
    run(options, jobs, {"simulated": dataset}, last)
    assert made == [jobs[2].key]  # of table 1, and its lists are not there


def test_a_fit_that_fails_is_told_and_the_others_are_made(tmp_path, dataset, monkeypatch):
    """Of one group the second fails."""
    jobs, rows = jobs_on(dataset), fits._row

    def row(job, *rest):
        if job.method.name == "paper" and job.seed == 1:
            raise InputError("no such thing")
        return rows(job, *rest)

    monkeypatch.setattr(fits, "_row", row)
    store = Store(tmp_path)
    (failed,) = run(PaperOptions(("fig4",), ("simulated",), quiet=True), jobs, {"simulated": dataset}, store)
    assert failed == "paper, simulated, P = 1, split 1: no such thing"
    assert set(store.rows) == {job.key for job in jobs} - {jobs[1].key}


def test_what_changes_a_fit_changes_its_key(dataset):
    (job,) = jobs_on(dataset, TINY[:1], (0,))
    same = replace(job, method=replace(job.method, name="k-4", label="another name", changes={**QUICK, "hidden": [6]}))
    assert same.key == job.key
    others = [
        replace(job, seed=1),
        replace(job, per_user=10),
        replace(job, fingerprint="other"),
        replace(job, method=replace(job.method, changes=QUICK | {"lambda_u": 0.2})),
        replace(job, method=TINY[2]),
    ]
    assert len({one.key for one in [job, *others]}) == 6


def test_fits_of_the_same_pretraining_are_one_group(dataset):
    """Both P and all splits; a held control goes on from the joint fit's networks, other epochs of content do not."""
    control = Method("content", "content", "paper", QUICK | {"pretrain_epochs": 2})
    jobs = jobs_on(dataset, (*TINY, control), sizes=(1, 10))
    groups = grouped([*jobs, *jobs], {jobs[0].key})
    assert [len(group) for group in groups] == [7, 4, 4]
    assert {job.method.name for job in groups[0]} == {"paper", "cdl-paper"}


def test_figures_share_their_fits():
    """K = 50 is the preset as it is: no second fit of it. Figure 6 has epochs of its own."""
    plain = next(method for method in COMPARED if method.name == "paper-alive")
    keys = {name: Job("d", "f", 1, 0, method).key for name, method in
            {one.name: one for one in (plain, *OVER_LAMBDA_R, *OVER_FACTORS)}.items()}  # fmt: skip
    assert keys["paper-alive"] == keys["k-50"] != keys["joint-lambda-r-1"]
    assert len(set(keys.values())) == len(keys) - 1


def test_another_process_is_asked_for_the_same_fits(dataset):
    jobs = jobs_on(dataset)
    asked = jobs_asked(json.loads(question(jobs, "folder", 1)))
    assert [asdict(one)["seed"] for one in asked] == [job.seed for job in jobs]
    assert [one.key for one in asked] == [job.key for job in jobs]


@pytest.mark.slow
def test_two_processes_make_what_one_makes(tmp_path, dataset):
    dataset.save(tmp_path / "data")
    data = str(tmp_path / "data")
    jobs = [replace(job, data=data) for job in jobs_on(dataset)]
    found = []
    for n in (1, 2):
        store = Store(tmp_path / f"out{n}")
        options = PaperOptions(("fig4",), (data,), out=str(tmp_path / f"out{n}"), jobs=n, quiet=True)
        assert run(options, jobs, {data: dataset}, store) == []
        found.append({key: (row["corrected"], row["paper"]) for key, row in Store(store.folder).rows.items()})
    assert found[0].keys() == found[1].keys() == {job.key for job in jobs}
    for key, (corrected, _) in found[0].items():
        assert found[1][key][0] == pytest.approx(corrected, abs=1e-6)


def test_the_time_left_is_that_of_finished_fits(tmp_path, dataset):
    jobs, store = jobs_on(dataset), Store(tmp_path)
    store.add(row_of(jobs[4], seconds=10.0, options={"rival": "tfidf"}))
    assert seconds_left(jobs, store, 1) is None and in_words(None) == ""
    store.add(row_of(jobs[0], seconds=100.0, seconds_measuring=20.0))
    assert seconds_left([jobs[1], jobs[5]], store, 1) == 130.0
    assert seconds_left([jobs[1], jobs[2]], store, 2) == 120.0  # the third is taken for any other fit
    unknown = replace(jobs[5], method=Method("als", "ALS"))
    assert seconds_left([jobs[1], unknown], store, 1) == 120.0
    assert in_words(130.0) == "; about 2 min left" and in_words(7200.0) == "; about 2.0 h left"


def test_rows_of_no_use_are_passed_over(tmp_path, dataset, caplog):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"key": "a"}\n\xff\n[1]\n\n' + json.dumps(row_of(jobs_on(dataset)[0])).encode())
    assert len(Store(tmp_path).rows) == 1
    assert "3 lines without a finished fit passed over" in caplog.text


# --- intervals and verdicts -------------------------------------------------------------------------------------------


def test_a_t_interval_is_scipys():
    values = np.array([0.31, 0.35, 0.30, 0.36, 0.33])
    found, wanted = t_interval(values), ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), wanted.low, wanted.high))
    assert np.isnan(t_interval([0.3]).low)


def results_of(dataset, recalls):
    """Results with a recall for each method and split; ``recalls`` {method: [by seed]}."""
    chosen = [Method(name, name, "paper", QUICK | {"seed": n}) for n, name in enumerate(recalls)]
    jobs = jobs_on(dataset, chosen, range(5))
    rows = {}
    for job in jobs:
        if job.seed < len(recalls[job.method.name]):
            value = recalls[job.method.name][job.seed]
            rows[job.key] = row_of(job, corrected=dict.fromkeys(map(str, CUTOFFS), value), precision=value / 2)
    return Results(jobs, rows, {"simulated": "simulated"})


def test_contrasts_are_paired_over_the_splits_that_all_have(dataset):
    a, b = [0.3, 0.5, 0.4, 0.9], [0.25, 0.44, 0.37]
    results = results_of(dataset, {"a": a, "b": b})
    away = np.subtract(a[:3], b)
    found = results.contrast(less("a", "b", 1, 50), "simulated", "corrected")
    wanted = ttest_1samp(away, 0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((away.mean(), wanted.low, wanted.high))
    relative = results.contrast(less("a", "b", 1, 50), "simulated", "corrected", [Term(1.0, "b", 1, 50)])
    assert relative.value == pytest.approx((away / b).mean())
    halved = results.contrast(less("a", "b", 1, "precision"), "simulated", "corrected")
    assert halved.value == pytest.approx(away.mean() / 2)
    assert results.contrast(less("a", "c", 1, 50), "simulated", "corrected") is None
    table = table_of(
        results, jobs_on(dataset, [Method("a", "a", "paper", QUICK | {"seed": 0})]), {"simulated": "simulated"}
    )
    row = table.set_index(["protocol", "cutoff"]).loc[("corrected", 50)]
    assert row["recall"] == pytest.approx(np.mean(a)) and row["se"] == pytest.approx(np.std(a, ddof=1) / 2)


UP, DOWN, WIDE = Interval(0.02, 0.01, 0.03), Interval(-0.02, -0.03, -0.01), Interval(0.0, -0.02, 0.02)
NONE, SMALL = Interval(0.0005, -0.001, 0.0015), Interval(0.004, 0.003, 0.005)
ONE = Interval(0.02, float("nan"), float("nan"))


@pytest.mark.parametrize(
    ("claimed", "intervals", "said"),
    [
        ("above", [UP, SMALL], "holds"),
        ("above", [UP, DOWN], "does not"),
        ("above", [UP, NONE], "does not"),
        ("above", [UP, Interval(0.001, 0.0005, 0.0015)], "does not"),  # above, but by nothing
        ("above", [UP, WIDE], "cannot be told"),
        ("above", [UP, None], "cannot be told"),
        ("above", [DOWN, None], "does not"),
        ("above", [UP, ONE], "cannot be told"),
        ("above", [None, None], "not measured"),
        ("above", [], "not measured"),
        ("below", [DOWN], "holds"),
        ("below", [DOWN, UP], "does not"),
        ("below", [NONE], "does not"),
        ("below", [WIDE], "cannot be told"),
        ("similar", [NONE, SMALL], "holds"),
        ("similar", [NONE, Interval(0.02, 0.011, 0.03)], "does not"),
        ("similar", [DOWN], "cannot be told"),  # it reaches the edge
        ("similar", [Interval(-0.02, -0.03, -0.011)], "does not"),
        ("similar", [WIDE], "cannot be told"),
        ("at least", [UP], "holds"),
        ("at least", [SMALL], "does not"),
        ("at least", [Interval(0.02, 0.005, 0.03)], "cannot be told"),
    ],
)
def test_the_rule(claimed, intervals, said):
    assert (NOTHING, SIMILAR) == (0.002, 0.01)
    assert judge(claimed, intervals, least=0.01) == said


def test_roles_are_cast_and_every_contrast_counts(dataset):
    steady = np.linspace(0, 0.001, 5)
    recalls = {"paper": 0.4 + steady, "cdl-paper": 0.3 + steady, "best": 0.3 + 2 * steady, "cdl": 0.35 + steady}
    claim = Claim("c", "3.4", "s", "above", (Contrast("w", less("CVAE", "CDL", 1, 50)),), compares=True)
    sizes = Claim("m", "3.4", "s", "at least", tuple(
        Contrast("w", less("CVAE", "CDL", 1, 50), (), least) for least in (0.05, 0.2)))  # fmt: skip
    results = results_of(dataset, recalls)
    found = {(v.claim.name, v.settings, v.protocol): v for v in verdicts_on(results, (claim, sizes))}
    assert found["c", "paper", "corrected"].judgement == "holds"
    assert found["c", "paper", "corrected"].found[0].interval.value == pytest.approx(0.1)
    assert found["c", "validated", "corrected"].judgement == "does not"
    assert found["c", "paper", "paper"].judgement == "does not"  # the same recalls for all
    assert found["m", "paper", "corrected"].judgement == "does not"  # at least 0.05, but not 0.2


def test_claims_speak_of_methods_that_there_are():
    names = {method.name for part in PARTS for method in METHODS[part]}
    where = {part: {method.name for method in METHODS[part]} for part in PARTS}
    cast = {settings: set(roles.values()) for settings, roles in ROLES.items()}
    assert all(roles < where["fig4"] for roles in cast.values())
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert len(claim.sentence.split()) <= 25, claim.name
        used = {term.method for one in claim.contrasts for term in (*one.terms, *one.base)}
        assert used <= set(ROLES["paper"]) | names, claim.name
        assert claim.compares == bool(used & set(ROLES["paper"])), claim.name
        assert all(one.least == 0 for one in claim.contrasts) or claim.claimed == "at least"
        for one in claim.contrasts:
            assert sum(term.weight for term in one.terms) == 0, claim.name


def test_figures_of_the_papers_margins():
    """The least and the largest margin of a setting, with their boosts, give the same recall of CVAE."""
    for margins, ours in (
        ((0.044, 0.157), (0.20, 1.60)),
        ((0.041, 0.151), (0.1639, 1.10)),
        ((0.129, 0.247), (0.264, 0.68)),
    ):
        least, most = (margin / boost + margin for margin, boost in (margins, ours))
        assert least == pytest.approx(most, abs=0.003)


# --- what is read -----------------------------------------------------------------------------------------------------


def test_words_and_tags_are_one_bag():
    words, tags = (sp.random(5, n, 0.5, "csr", random_state=n) for n in (4, 3))
    both = side_by_side(Content(words, tuple("abcd")), Content(tags, ("a", "x", "y")))
    assert (both.counts.toarray() == np.hstack([words.toarray(), tags.toarray()])).all()
    assert both.vocabulary == (*"abcd", "tag:a", "tag:x", "tag:y")


def test_a_folder_without_counts_has_titles_and_tags(tmp_path):
    files = {"users.dat": "2 0 1\n1 2", "vocabulary.dat": "deep\nmodel", "titles.txt": "A deep model\nModel\nNothing",
             "tags.dat": "rare\noften", "item-tag.dat": "2 0 1\n1 1\n1 1"}  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for name in ("tags.dat", "item-tag.dat"):
        (tmp_path / name).rename(tmp_path / f"{name}.not")
    dataset, told = load_study(str(tmp_path))
    assert told == "words of titles alone (no mult.dat)" and dataset.n_features == 2
    for name in ("tags.dat", "item-tag.dat"):
        (tmp_path / f"{name}.not").rename(tmp_path / name)
    with pytest.raises(InputError, match="no tag is on 5 items"):
        load_study(str(tmp_path))
    (tmp_path / "mult.dat").write_text("2 0:1 1:3\n1 1:2\n0")
    dataset, told = load_study(str(tmp_path))
    assert told == "words of titles and abstracts" and dataset.content.counts.sum() == 6


@pytest.mark.realdata
def test_citeulike_a_is_titles_and_tags(data_folder):
    dataset, told = load_study(str(data_folder / "citeulike-a"))
    assert "titles" in told and "tags on 5 items" in told and "one bag" in told and dataset.others == {}
    assert dataset.n_features == 8000 + 7386 and dataset.titles is not None


# --- table 1 ----------------------------------------------------------------------------------------------------------


def test_users_are_chosen_by_the_rule():
    one = np.array([0.9, 0.5, 0.2, 0.3, 0.4, 0.8, 0.1, 0.6, 0.7, 1.0])
    n_test = np.array([20, 30, 20, 20, 20, 20, 20, 20, 20, 19])
    able = one[:9]  # the last has too few
    high, middle = (int(np.argmin(np.abs(able - np.quantile(able, q)))) for q in (0.9, 0.5))
    assert choose_users([one, one], n_test) == [high, middle] == [5, 1]
    other = one[::-1].copy()  # the mean of both is what counts
    assert choose_users([one, other], np.full(10, 20))[0] == int(
        np.argmin(np.round(np.abs((one + other) / 2 - np.quantile((one + other) / 2, 0.9)), 12))
    )
    assert choose_users([np.full(3, 0.5)], np.full(3, 20)) == [0, 1]  # ties: the first, and no user twice
    assert choose_users([one], np.full(10, 3)) == []


def test_lists_hold_the_best_items_and_say_what_is_in_the_library(dataset):
    import torch

    split = per_user(dataset, 1, 0)
    scores = torch.rand(dataset.n_users, dataset.n_items, generator=torch.Generator().manual_seed(1))

    def block(users):
        return scores[torch.as_tensor(users)]

    found = recalls(block, split, cutoffs=(10,))
    lists = best_lists(block, split, found)
    test = {(u, i) for u, i in zip(split.test.users.tolist(), split.test.items.tolist(), strict=True)}
    for row, user in enumerate(lists["users"].tolist()):
        own = scores[user].clone()
        own[torch.from_numpy(split.train.items[split.train.users == user])] = -1
        assert lists["items"][row].tolist() == own.argsort(descending=True)[:10].tolist()
        hits = sum((user, item) in test for item in lists["items"][row].tolist())
        assert lists["precision"][row] == pytest.approx(hits / 10)
    made = examples(dataset, split, {"one": lists, "two": lists})
    text = as_markdown("simulated", made)
    assert len(made) == 2 and text.count("| 10 |") == 4 and "### User II " in text
    assert made[0].lists[0].in_library.count(True) / 10 == pytest.approx(
        lists["precision"][choose_users([lists["precision"]], lists["n_test"])[0]]
    )
    assert "No user has 20" in as_markdown("simulated", [])


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_draws_prints_and_goes_on(tmp_path, tiny, capsys, monkeypatch):
    out = tmp_path / "paper"
    words = ["fig4", "fig6", "table1", "--data", "simulated", "--splits", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["analysis.paper", *words])
    assert run_command(main) == 0
    said = capsys.readouterr()
    assert "fits 12/12" in said.err  # lambda_r = 1 at P = 1 is the fit of figure 4
    lines = [line for line in said.out.splitlines() if str(out) not in line]  # a folder's path is as long as it is
    assert max(map(len, lines)) <= 80
    drawn = ["fig4-corrected.png", "fig4-paper.png", "fig6-simulated-corrected.png", "fig6-simulated-paper.png"]
    wanted = [
        *drawn,
        "fig4.csv",
        "fig4-differences.csv",
        "fig6.csv",
        "fig6-differences.csv",
        "lists",
        "results.jsonl",
        "table1.md",
        "verdicts.md",
    ]
    assert sorted(path.name for path in out.iterdir()) == sorted(wanted)
    for name in drawn:
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
    table = pd.read_csv(out / "fig4.csv")
    assert len(table) == len(TINY) * 2 * len(CUTOFFS) and (table["splits"] == 2).all()
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    for row in table[table["protocol"] == "paper"].itertuples():
        own = [one["paper"][str(row.cutoff)] for one in rows if one["method"] == row.method and one["per_user"] == 1]
        assert row.recall == pytest.approx(np.mean(own))
    away = pd.read_csv(out / "fig4-differences.csv")
    by_cell = table.set_index(["method", "protocol", "cutoff"])["recall"]
    assert len(away) == 2 * 2 * len(CUTOFFS)  # of the others, less the CVAE
    for row in away.itertuples():
        wanted = by_cell[row.method, row.protocol, row.cutoff] - by_cell["paper", row.protocol, row.cutoff]
        assert row.difference == pytest.approx(wanted, abs=1e-12) and row.low <= row.difference <= row.high
    for label in (method.label for method in TINY):
        assert label in said.out
    assert "citeulike" not in (out / "table1.md").read_text()
    monkeypatch.setattr(running, "rows_of", lambda *given: pytest.fail("nothing is to be fitted"))
    assert run_command(main) == 0
    assert len((out / "results.jsonl").read_text().splitlines()) == len(rows) == 12


def test_long_labels_fit_into_eighty_columns(dataset):
    longest = max((method for part in PARTS for method in METHODS[part]), key=lambda method: len(method.label))
    jobs = jobs_on(dataset, [replace(longest, preset="paper", changes=QUICK)])
    table = table_of(Results(jobs, {job.key: row_of(job) for job in jobs}, {"simulated": "citeulike-t"}), jobs,
                     {"simulated": "citeulike-t"})  # fmt: skip
    parts = sheets("fig4", table)
    assert len(parts) == 4  # a title and a table for each protocol
    for title, sheet in zip(parts[::2], parts[1::2], strict=True):
        assert len(title.strip()) <= 80 and max(map(len, _aligned(sheet).splitlines())) <= 80


def test_the_page_of_verdicts_has_the_numbers(dataset):
    steady = np.linspace(0, 0.001, 5)
    results = results_of(dataset, {"paper": 0.4 + steady, "cdl-paper": 0.3 + steady})
    claim = Claim("c wins", "3.4", '"words"', "above", (Contrast("CVAE less CDL", less("CVAE", "CDL", 1, 50)),),
                  compares=True)  # fmt: skip
    page = verdicts_page(verdicts_on(results, (claim,)), ["about these data"])
    assert "## C wins" in page and '"words"' in page and "about these data" in page
    assert "corrected protocol: **holds**" in page and "+0.1000 [+0.1000, +0.1000]" in page


def test_what_is_asked_is_checked(monkeypatch):
    assert PaperOptions(("all",)).chosen == PARTS
    assert PaperOptions(("fig5", "fig4"), splits=2).n_splits("fig4") == 2
    assert PaperOptions(("all",), splits=2).n_splits("table1") == 1
    for wrong in ({"parts": ("fig8",)}, {"splits": 0}, {"jobs": 0}, {"data": ("a", "a")}, {"out": "nowhere/at/all"}):
        with pytest.raises(InputError):
            PaperOptions(**({"parts": ("fig4",)} | wrong))
    with pytest.raises(InputError, match="--methods has 'nobody'"):
        check_methods(("fig4",), ("nobody",))


def test_methods_without_a_preset_wait(monkeypatch, caplog):
    monkeypatch.setattr(presets, "names", lambda: {"paper": "", "best": ""})
    options = PaperOptions(("fig4",), ("simulated",), splits=1)
    made = {job.method.name for job in jobs_of(options, "fig4", {"simulated": "f"})}
    assert {"paper", "best", "als"} < made and "cdl" not in made
    methods.tell_missing(("fig4",), ())
    assert "cdl, cdl-paper, ctr" in caplog.text


def test_table_1_needs_its_lists(tmp_path, dataset, tiny):
    """Of a fit by whatever name: lambda_r = 1 of figure 6 is that of the table."""
    jobs, store = jobs_on(dataset, OVER[:1], (0,)), Store(tmp_path)
    store.add(row_of(jobs[0]))
    assert finished(jobs, store) == set()
    store.add_lists(jobs[0].key, {"users": np.arange(2)})
    assert finished(jobs, store) == {jobs[0].key}


@pytest.mark.slow
def test_a_killed_command_goes_on(tmp_path):
    """Killed after its first fits, then called again: every fit once, and the same numbers as in one go."""
    words = [sys.executable, "-m", "analysis.paper", "fig4", "--data", "simulated", "--splits", "1", "--methods",
             "tfidf", "svd-50", "popularity", "--out", str(tmp_path / "out")]  # fmt: skip
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    next(line for line in process.stderr if "fits 1/3" in line)
    process.kill()
    process.communicate()
    before = Store(tmp_path / "out").rows
    assert len(before) >= 1
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = Store(tmp_path / "out").rows
    assert len(after) == 3 and all(after[key] == row for key, row in before.items())


def test_every_method_has_a_colour_and_a_marker():
    for method in (*COMPARED, *OVER_LAMBDA_R, *OVER_FACTORS):
        assert method.line in MARKERS and (method.family in COLORS or method.name == "k-50-untied")


def test_a_fit_is_told_by_the_options_that_are_not_at_their_defaults(monkeypatch):
    """A later option, at its default, makes no other fit of it; nor do threads and seeds of the data."""
    usual = Options.of("coordinate").to_dict()
    best = next(method for method in COMPARED if method.preset == "best")
    known = identity(best)
    assert known["factors"] == 500 and "balance" not in known and "threads" not in known
    assert all(value != usual[name] for name, value in known.items())
    original = Options.to_dict
    monkeypatch.setattr(Options, "to_dict", lambda self: original(self) | {"later": 1})
    _known.cache_clear()
    assert identity(best) == known
    monkeypatch.undo()
    _known.cache_clear()
    changed = replace(best, changes=best.changes | {"radius": 2.0})
    assert identity(changed) == known | {"radius": 2.0} and identity(changed) != known
