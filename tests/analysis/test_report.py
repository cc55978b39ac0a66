"""The report: what it says against a second computation, that it is safe to open, and how a browser shows it."""

import dataclasses
import html
import itertools
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import inference
from analysis.page.examples import example_lists
from analysis.page.facts import reproduce
from analysis.page.figures import svg
from analysis.page.making import report
from analysis.page.options import ReportOptions
from analysis.page.tables import by_history
from analysis.recalibration import predict
from analysis.reliability import reliability, top_lists
from analysis.report import main
from inference.commands import parse
from inference.evaluation.rankings import evaluate
from inference.liveness import content_verdict
from inference.options import Options
from inference.posterior import content_diagnostics
from pyro_cvae.data.contents import Vectors
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.reading import Reading
from pyro_cvae.errors import InputError
from pyro_cvae.runs import open_run

ROOT = Path(__file__).parents[2]
WORDS = ("comet", "nebula", "sail", "mast", "oven", "pastry", "lemma", "proof")
OPTIONS = {"factors": 3, "hidden": (6,), "train_per_user": 5, "lambda_u": 1.0, "pretrain_epochs": 2, "epochs": 3}
N_USERS, N_ITEMS = 30, 60
EVIL = "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)> {{ 7 * 7 }}"


def make_dataset():
    rng = np.random.default_rng(0)
    counts = rng.integers(6, 15, N_USERS)
    pairs = [(u, j) for u in range(N_USERS) for j in rng.choice(N_ITEMS - 8, counts[u], replace=False)]
    dataset = from_frames(
        {"user": [f'u"><b>{u}' for u, _ in pairs], "item": [f"item&{j}" for _, j in pairs]},
        {
            "item": [f"item&{j}" for j in range(N_ITEMS)],
            "text": [" ".join(rng.choice(WORDS, 7)) for _ in range(N_ITEMS)],
            "title": [f"{EVIL} {j}" for j in range(N_ITEMS)],
        },
        name="small <i>data</i> $x_1$",
        reading=Reading(html="keep"),
    )
    shapes = Vectors(rng.random((N_ITEMS, 2)), np.ones(N_ITEMS, bool))
    return dataclasses.replace(dataset, others={"shapes": shapes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    dataset = make_dataset()
    kinds = {
        "map": {"method": "coordinate", "mode": "map", "sweeps": 2},
        "bayes": {"method": "coordinate", "mode": "bayes", "guide": "structured", "sweeps": 2},
        "<b>svi": {"method": "svi", "mode": "bayes", "kl_weight": 0.5, "tied": False, "hidden": (6, 5)},
    }
    for name, chosen in kinds.items():
        inference.fit(dataset, **OPTIONS | chosen, out=folder / name)
    inference.fit(dataset, **OPTIONS | {"split_seed": 1}, out=folder / "other-split")
    return folder


@pytest.fixture(scope="module")
def pages(folder, tmp_path_factory):
    """Pages about one run and about two, as files."""
    out = tmp_path_factory.mktemp("pages")
    for name, runs in {"one": ["bayes"], "two": ["map", "<b>svi"], "point": ["map"]}.items():
        options = ReportOptions(tuple(str(folder / run) for run in runs), str(out / f"{name}.html"), draws=200)
        (out / f"{name}.html").write_text(report(options), encoding="utf-8")
    return out


class Page(HTMLParser):
    """Elements with their attributes, text, and whether every element was closed."""

    EMPTY = ("meta", "br", "img", "line", "use", "path")

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module", params=["one", "two", "point"])
def page(pages, request):
    text = (pages / f"{request.param}.html").read_text(encoding="utf-8")
    return Page(text), text


# --- safe to open ----------------------------------------------------------------------------------------------------


def test_nothing_is_loaded_and_nothing_runs(page):
    parsed, text = page
    assert not {tag for tag, _ in parsed.elements} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "b i",
    }
    for tag, attributes in parsed.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} {name}"
            if name in ("href", "src", "xlink:href", "action", "srcset", "poster", "data"):
                assert value.startswith("#"), f"{tag} {name}={value}"
            assert "://" not in (value or ""), f"{tag} {name}={value}"
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.S))
    assert "@import" not in style and "url(" not in style and "@font-face" not in style
    assert "default-src 'none'" in text
    assert {target[1:] for target in re.findall(r"url\((#[^)]*)\)", text)} <= {a.get("id") for _, a in parsed.elements}


def test_titles_ids_and_names_are_shown_as_text(page):
    parsed, text = page
    assert f"{EVIL} " in parsed.text and html.escape(EVIL, quote=False) in text.replace("&#34;", '"')
    assert "<i>data</i> $x_1$" in parsed.text
    assert 'u"><b>' in parsed.text and "item&" in parsed.text
    assert "49" not in re.findall(r"onerror=alert\(2\)> (\S+)", parsed.text)


def test_the_contents_of_the_items_are_told(page):
    assert f"content shapes vectors, 2, of {N_ITEMS} of {N_ITEMS} items" in page[0].text


def test_ids_are_unique_and_headings_are_in_order(page):
    parsed, _ = page
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    for tag, attributes in parsed.elements:
        if tag == "svg":
            assert attributes["role"] == "img" and len(attributes["aria-label"]) > 5
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0" and attributes["aria-label"]


def test_a_figure_holds_text_escaped():
    drawn = str(svg(lambda axes: axes.set_title('<script>&"', parse_math=False), "f1", 'told "so" <b>'))
    parsed = Page(drawn)
    assert {tag for tag, _ in parsed.elements}.isdisjoint({"script", "b", "metadata"})
    assert "<script>&" in parsed.text and parsed.elements[0][1]["aria-label"] == 'told "so" <b>'


# --- what it says ----------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_evaluate(pages, folder):
    page = Page((pages / "two.html").read_text(encoding="utf-8"))
    for name in ("map", "<b>svi"):
        fit = inference.load(folder / name)
        means = evaluate(fit.posterior.score_block, fit.split).means()
        row = page.text.partition("Mean over users, with bootstrap")[2].partition(f" {name} ")[2]
        found = re.findall(r"\b(?<!– )(\d\.\d{3}) \d\.\d{3} –", row)[: len(means)]
        assert [float(one) for one in found] == pytest.approx(list(means.values()), abs=5.1e-4)
    assert "Corrected protocol" in page.text and "popularity" in page.text and "tfidf" in page.text
    assert "(tempered)" in page.text and "MAP objective and ELBO are different numbers" in page.text


def test_a_point_has_no_strips_and_says_which_mode_has(pages):
    point, bayes = (Page((pages / f"{name}.html").read_text(encoding="utf-8")) for name in ("point", "one"))
    strips = [[a for _, a in page.elements if a.get("class") == "i90"] for page in (point, bayes)]
    assert len(strips[0]) == 0 and len(strips[1]) == 30
    assert "A point estimate knows no uncertainty" in point.text and "--mode bayes" in point.text
    assert "A point estimate" not in bayes.text


def test_lists_and_strips_are_those_of_brute_force(folder):
    fit = inference.load(folder / "bayes")
    users = np.array([2, 17])
    lists = example_lists(fit, users, 6, 4000, seed=1)
    train, test = fit.split.train, fit.split.test
    for user, found in zip(users, lists, strict=True):
        scores = (fit.posterior.v_loc @ fit.posterior.u_loc[user]).numpy()
        seen = set(train.items[train.users == user])
        best = [j for j in np.argsort(-scores) if j not in seen][:6]
        assert [entry["id"] for entry in found] == [f"item&{fit.dataset.item_ids[j].partition('&')[2]}" for j in best]
        assert [entry["id"] for entry in found] == fit.dataset.item_ids[best].tolist()
        held_out = set(test.items[test.users == user])
        assert [entry["hit"] for entry in found] == [j in held_out for j in best]
        _, sd = fit.posterior.score(np.full(6, user), best)
        for entry, item, spread in zip(found, best, sd.tolist(), strict=True):
            assert entry["score"] == pytest.approx(scores[item], rel=1e-5)
            (low, high), (inner_low, inner_high) = entry["ends"][0.9], entry["ends"][0.5]
            assert low < inner_low < entry["score"] < inner_high < high
            # of a nearly Normal score: 3.29 and 1.35 standard deviations wide
            assert (high - low) / spread == pytest.approx(3.29, rel=0.1)
            assert (inner_high - inner_low) / spread == pytest.approx(1.35, rel=0.1)
    point = inference.load(folder / "map")
    assert all(entry["ends"] is None for found in example_lists(point, users, 6, 100, 0) for entry in found)


def test_probabilities_are_the_recalibrated_ones(folder, pages):
    fit = inference.load(folder / "bayes")
    one = reliability(fit, resamples=20, seed=0)
    users = np.array([2, 17])
    found = example_lists(fit, users, 6, 50, 0, one)
    expected = predict(one.recalibration, top_lists(fit, users, 6).flat(np.ones(2, bool)))
    assert [entry["p"] for entries in found for entry in entries] == pytest.approx(expected, rel=1e-6)
    page = Page((pages / "one.html").read_text(encoding="utf-8"))
    row = page.text.partition("over popularity bayes recalibrated ")[2].split()
    assert float(row[0]) == pytest.approx(one.scores.loc["recalibrated", "mean"], abs=5.1e-4)
    assert float(row[3]) == pytest.approx(one.scores.loc["recalibrated", "calibration_error"], abs=5.1e-5)


def test_asked_users_are_shown_and_drawn_ones_follow_the_seed(folder):
    def shown(**changes):
        page = Page(report(ReportOptions((str(folder / "map"),), str(folder / "x.html"), **changes)))
        return re.findall(r"User (\S+): \d+ training items, (\d+) held out", page.text)

    dataset, split = make_dataset(), inference.load(folder / "map").split
    asked = dataset.user_ids[[20, 3]].tolist()
    assert shown(user=tuple(asked)) == [
        (one, str(int(split.test.user_counts[row]))) for one, row in zip(asked, (20, 3), strict=True)
    ]
    assert shown(users=2) == shown(users=2) != shown(users=2, seed=1)
    assert shown(users=0) == []
    with pytest.raises(InputError, match="no user has the id 'nobody'"):
        shown(user=("nobody",))


def test_groups_of_users_are_those_of_brute_force(folder):
    fit = inference.load(folder / "bayes")
    found = evaluate(fit.posterior.score_block, fit.split, cutoffs=(10,))
    counts = np.random.default_rng(0).integers(0, 9, N_USERS)
    table = by_history(found, counts, "recall@10")
    assert table["n_users"].sum() == len(found.per_user)
    values = found.per_user.set_index("user")["recall@10"]
    for (least, most), row in table.iterrows():
        low = max(edge for edge in (0, 1, 2, 4, 8) if edge <= least)
        users = [user for user in values.index if low <= counts[user] < {0: 1, 1: 2, 2: 4, 4: 8, 8: 16}[low]]
        assert row["n_users"] == len(users) and {least, most} <= {counts[user] for user in users}
        assert row["mean"] == pytest.approx(values[users].mean(), rel=1e-12)
        error = values[users].std(ddof=1) / len(users) ** 0.5  # of one user alone there is none
        assert row["se"] == pytest.approx(error, rel=1e-12, nan_ok=True)


def test_verdicts_of_contents_that_are_known():
    torch.manual_seed(0)
    dead = content_diagnostics(torch.zeros(500, 20), torch.ones(500, 20))
    alive = content_diagnostics(torch.randn(500, 20), torch.full((500, 20), 0.1))
    loc = torch.zeros(500, 20)
    loc[:, 0] = torch.randn(500)
    faint = content_diagnostics(loc, torch.ones(500, 20).mul(0.9))
    assert [content_verdict(one, 500, 20)["state"] for one in (dead, faint, alive)] == ["collapsed", "faint", "alive"]
    assert content_verdict(alive | {"mutual_information": 0.05}, 500, 20)["state"] == "collapsed"
    assert content_verdict(alive | {"active_units": 1.0}, 500, 20)["state"] == "faint"


@pytest.mark.parametrize("name", ["map", "bayes", "<b>svi"])
def test_the_command_gives_the_same_options_again(folder, name):
    run = open_run(folder / name)
    python, dash, module, *argv = shlex.split(reproduce(run))
    method = run.config["command"]
    assert [python, dash, module] == ["python", "-m", f"inference.{method}"]
    assert argv[argv.index("--mode") + 1] == ("map" if name == "map" else "bayes")
    again = Options(*parse(module, "", Options.classes(method), argv))
    free = {"out", "resume", "overwrite", "quiet", "checkpoint_seconds"}
    expected = {name: tuple(v) if isinstance(v, list) else v for name, v in run.config["options"].items()}
    assert {n: v for n, v in again.to_dict().items() if n not in free} == {
        n: v for n, v in expected.items() if n not in free
    }


def test_arguments_of_a_likelihood_are_in_the_command(folder):
    run = open_run(folder / "map")
    run.config["options"] |= {"content_likelihood": "multinomial", "content_likelihood_args": {"subsample": 5}}
    assert "--content-likelihood.subsample 5" in reproduce(run)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def call(answer):
    return partial(answer, main)


def test_the_command_writes_the_page_and_refuses_to_replace_it(folder, tmp_path, call):
    out = tmp_path / "page.html"
    code, said, err = call(folder / "bayes", "--out", out, "--draws", "50", "--users", "1")
    assert (code, err) == (0, "") and str(out) in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]
    before = out.read_bytes()
    code, _, err = call(folder / "map", "--out", out)
    assert code == 2 and "exists already" in err and len(err.splitlines()) == 1
    assert call(folder / "bayes", "--out", out, "--draws", "50", "--users", "1", "--overwrite")[0] == 0
    assert out.read_bytes() == before  # the same page to the letter
    code, _, err = call(folder / "map", folder / "other-split", "--out", out, "--overwrite")
    assert code == 2 and "another split" in err and out.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


def test_the_page_has_a_name_of_its_own(folder, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said, err = call(folder / "bayes", "--draws", "50", "--users", "1")
    assert (code, err) == (0, "")
    assert "report-bayes.html" in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["report-bayes.html"]
    assert call(folder / "bayes")[0] == 2  # it is not replaced unasked


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("map", "bayes", "other-split"), "3 runs are named"),
        (("map", "--draws", "5"), "--draws is 5"),
        (("map", "--out", "page.pdf"), "must end in .html"),
        (("map", "--out", "nowhere/page.html"), "no such folder"),
        (("none",), "there is no such run folder"),
    ],
)
def test_wrong_calls_are_answered_in_one_line(folder, tmp_path, call, monkeypatch, argv, said):
    monkeypatch.chdir(tmp_path)
    runs = [
        str(folder / word) if not word.startswith("-") and word in ("map", "bayes", "other-split", "none") else word
        for word in argv
    ]
    code, _, err = call(*runs, *(() if "--out" in argv else ("--out", "page.html")))
    assert code == 2 and said in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# --- in a browser ----------------------------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars")
FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync")


def browse(path, tmp_path, *flags):
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [CHROMIUM, *FLAGS, profile, *flags, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on this machine")
@pytest.mark.parametrize("name", ["one", "two"])
def test_no_page_is_wider_than_its_window(pages, tmp_path, name):
    """Frames of many widths in a page of ours, whose script reads how wide and high their content is."""
    page = (pages / f"{name}.html").read_text(encoding="utf-8")
    page = re.sub(r"<meta http-equiv.*?>", "", page)  # a frame inherits what the page around it may
    widths = (360, 380, 768, 1200)
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>' for width in widths)
    script = """<script>addEventListener("load", () => { document.title = [...document.querySelectorAll("iframe")].map(
        frame => { const root = frame.contentDocument.documentElement;
          const boxes = [...frame.contentDocument.querySelectorAll(".scroll")].filter(
            box => box.scrollWidth > box.clientWidth).length;
          return [frame.clientWidth, root.scrollWidth, root.scrollHeight, boxes].join(":");
        }).join(" "); });</script>"""
    around = tmp_path / "around.html"
    around.write_text(f"<!doctype html><title>none</title>{script}{frames}", encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", browse(around, tmp_path, "--dump-dom"))[1]
    found = [tuple(map(int, one.split(":"))) for one in title.split()]
    assert [window for window, *_ in found] == list(widths)
    for window, width, height, _ in found:
        assert width <= window and height > 2000
    assert found[0][3] > 0  # in a narrow window a table scrolls in its own box


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on this machine")
def test_a_browser_draws_the_page_and_runs_nothing(pages, tmp_path):
    from matplotlib.image import imread

    path = pages / "two.html"
    shown = browse(path, tmp_path, "--dump-dom")
    assert "<script" not in shown.replace("&lt;script", "") and shown.count("<svg") > 60
    pictures = {}
    for name, more in {"light": (), "dark": ("--blink-settings=preferredColorScheme=0",)}.items():
        picture = tmp_path / f"{name}.png"
        browse(path, tmp_path, "--window-size=1200,3000", f"--screenshot={picture}", *more)
        pictures[name] = imread(picture)[:, :, :3]
    assert pictures["light"].shape == (3000, 1200, 3)
    assert pictures["light"].mean() > 0.8 and pictures["dark"].mean() < 0.35
    for picture in pictures.values():  # text all the way down: in no tenth of the height is there one colour alone
        assert all(part.std() > 0.01 for part in np.array_split(picture, 10))


# --- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.slow
def test_a_report_of_citeulike_t_is_cheap(data_folder, tmp_path):
    """Below 2 GiB for 1,000 posterior draws; full covariances with 50 factors, two runs."""
    data = data_folder / "citeulike-t"
    settings = (
        "--data",
        data,
        "--train-file",
        data / "cf-train-10-users.dat",
        "--pretrain-epochs",
        "1",
        "--epochs",
        "0",
    )
    settings += ("--sweeps", "2", "--start", "svd", "--hidden", "50", "--quiet")
    for name, chosen in {"map": ("--mode", "map"), "bayes": ("--guide", "structured")}.items():
        command = [sys.executable, "-m", "inference.coordinate", *settings, *chosen, "--out", tmp_path / name]
        subprocess.run(list(map(str, command)), check=True, cwd=ROOT)
    code = (
        "import resource, sys; from analysis.report import main; main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"
    )
    command = [sys.executable, "-c", code, tmp_path / "map", tmp_path / "bayes", "--out", tmp_path / "page.html"]
    done = subprocess.run(list(map(str, command)), check=True, cwd=ROOT, capture_output=True, text=True)
    assert float(done.stdout.splitlines()[-1]) < 2.0
    assert (tmp_path / "page.html").stat().st_size < 2**20
