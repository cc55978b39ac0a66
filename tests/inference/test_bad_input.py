"""Malformed inputs through the real commands: exit code 2, one line that names place and remedy, nothing destroyed."""

import importlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import inference
from inference.fit_command import run_fit
from pyro_cvae.errors import run_command

ROOT = Path(__file__).resolve().parents[2]
PAIRS = "user,item,weight\n" + "".join(f"u{u},i{(u + j) % 9},1\n" for u in range(1, 6) for j in (1, 2, 3, 5))
WORDS = ("comet nebula", "sail mast", "oven pastry")
ITEMS = "item,text\n" + "".join(f"i{j},{WORDS[j % 3]} {WORDS[j % 2]} comet\n" for j in range(9))
STARS = "user,item,rating\n" + "".join(f"u{u},i{u},{u - 1.5}\n" for u in range(1, 6))
USERS, MULT, VOCABULARY = "2 0 2\n2 1 2\n", "1 0:1\n2 0:1 1:2\n2 1:3 0:1\n", "alpha\nbeta\n"
SMALL = ("--factors", "2", "--hidden", "3", "--pretrain-epochs", "1", "--epochs", "1", "--train-per-user", "2")
TABLES = ("--data", "pairs.csv", "--items", "items.csv")
FOLDER = ("--data", "citeulike", "--train-per-user", "1")
PLUGIN = "class NoLikelihood:\n    pass\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with good inputs and good runs: ``old`` is whole, ``half.partial`` was stopped after 2 of 3 epochs."""
    folder = tmp_path_factory.mktemp("good")
    write(folder, {"pairs.csv": PAIRS, "items.csv": ITEMS, "one.txt": "i1\n", "a_plugin_of_none.py": PLUGIN})
    write(folder, {"citeulike/users.dat": USERS, "citeulike/mult.dat": MULT, "citeulike/vocabulary.dat": VOCABULARY})
    save_contents(folder)
    whole = ["inference.svi", *TABLES, *SMALL]
    before = os.getcwd(), sys.argv
    os.chdir(folder)
    try:
        for out, more in (("old", ()), ("untested", ("--train-per-user", "99"))):
            sys.argv = [*whole, *more, "--out", out, "--quiet"]
            assert run_fit("svi") == 0
        stop_after_two_epochs()
    finally:
        os.chdir(before[0])
        sys.argv = before[1]
    return folder


def save_contents(folder):
    """``saved``, a data set with vectors p."""
    from pyro_cvae.data.registry import load_dataset

    (folder / "p.npy").write_bytes(npy(np.ones((9, 2))))
    load_dataset(folder / "pairs.csv", folder / "items.csv", [f"p={folder / 'p.npy'}"]).save(folder / "saved")
    (folder / "p.npy").unlink()


def stop_after_two_epochs():
    from inference.options import Options
    from pyro_cvae.data.registry import load_dataset

    options = {"data": "pairs.csv", "items": "items.csv", "factors": 2, "hidden": (3,), "train_per_user": 2}
    options |= {"pretrain_epochs": 1, "epochs": 2, "out": "half", "checkpoint_seconds": 0.0}
    dataset = load_dataset("pairs.csv", "items.csv")

    def die(step, n_steps, row):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inference.fit(dataset, **options, on_step=die)
    assert Options.of(**options).run.out == "half"
    from pyro_cvae.runs.disk import unlock

    unlock(Path("half.partial").absolute())


@pytest.fixture
def work(finished, tmp_path, monkeypatch):
    """A copy of it, as the current folder."""
    folder = tmp_path / "work"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def write(folder, files):
    """Text, bytes, None (deleted) or a folder ({}) under each name; a function changes the bytes that are there."""
    for name, content in files.items():
        path = folder / name
        if callable(content):
            content = content(path.read_bytes())
        if path.is_file():
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        if content == {}:
            path.mkdir()
        elif content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def flipped(raw):
    """The same bytes with one bit in the middle turned."""
    at = len(raw) // 2
    return raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :]


def contents(folder):
    """Every file but what Python itself leaves where it may."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent.name != "__pycache__")
    return {path: path.read_bytes() for path in files}


def lines(text, *changed):
    """The text with lines (1-based) replaced."""
    rows = text.split("\n")
    for number, row in changed:
        rows[number - 1] = row
    return "\n".join(rows)


def svi(*argv, files=None, place="", words=""):
    return ("svi", (*TABLES, *SMALL, "--out", "old", "--overwrite", *argv), files or {}, place, words)


def cite(*argv, files=None, place="", words=""):
    return ("svi", (*FOLDER, *SMALL[:-2], "--out", "old", "--overwrite", *argv), files or {}, place, words)


def closed(*argv, files=None, place="", words=""):
    return ("coordinate", (*TABLES, *SMALL, "--out", "old", "--overwrite", *argv), files or {}, place, words)


def npy(*values, **named):
    """The bytes of a ``.npy`` file, or with names of an ``.npz`` file."""
    stream = io.BytesIO()
    np.savez(stream, **named) if named else np.save(stream, *values)
    return stream.getvalue()


def png(height, width):
    stream = io.BytesIO()
    Image.fromarray(np.arange(height * width, dtype=np.uint8).reshape(height, width)).save(stream, "PNG")
    return stream.getvalue()


def resume(*argv, files=None, place="", words=""):
    options = (*TABLES, *SMALL, "--epochs", "2", "--checkpoint-seconds", "0", "--out", "half", "--resume")
    return ("svi", (*options, *argv), files or {}, place, words)


def ask(*argv, files=None, place="", words=""):
    return ("recommend", ("old", *argv), files or {}, place, words)


def test_of(*argv, files=None, place="", words=""):
    return ("evaluate", argv, files or {}, place, words)


test_of.__test__ = False

CASES = {
    # tables
    "ragged row": svi(files={"pairs.csv": lines(PAIRS, (3, "u1"))}, place="pairs.csv:3:", words="has 1 value"),
    "unknown item": svi(files={"pairs.csv": lines(PAIRS, (4, "u1,i9,1"))}, place="pairs.csv:4:", words="add it there"),
    "NaN weight": svi(files={"pairs.csv": lines(PAIRS, (2, "u1,i1,nan"))}, place="pairs.csv:2:", words="0 or more"),
    "negative weight": svi(files={"pairs.csv": lines(PAIRS, (2, "u1,i1,-1"))}, place="pairs.csv:2:", words="'-1'"),
    "no id": svi(files={"pairs.csv": "user,item\n,i1\n"}, place="pairs.csv:2:", words="no row has an id of the user"),
    "no time where it is needed": svi(
        *("--split", "time"),
        files={"pairs.csv": "user,item,time\nu1,i1,5\nu1,i2,\n"},
        place="pairs.csv:3:",
        words="time",
    ),
    "unknown encoding": svi("--encoding", "klingon", words="--encoding is 'klingon'"),
    "unknown column": svi("--columns", "user=who", place="pairs.csv:", words="has no column who"),
    "no column": svi("--columns", "user", words="write user=COLUMN"),
    "unknown tokenizer": svi("--tokenizer", "wrods", words="--tokenizer is 'wrods'"),
    "tokenizer that is nowhere": svi("--tokenizer", "nowhere.f", words="importing nowhere failed"),
    "bound of stars": svi("--ratings", "stars", "--min-rating", "4", words="--min-rating is 4.0"),
    "wrong format": svi("--format", "xml", words="--format is 'xml'"),
    "empty table": svi(files={"pairs.csv": ""}, place="pairs.csv:", words="empty"),
    "header only": svi(files={"pairs.csv": "user,item\n"}, place="pairs.csv:", words="no rows"),
    "bad UTF-8": svi(files={"pairs.csv": PAIRS.encode() + b"u\xff,i1,1\n"}, place="pairs.csv:22:", words="UTF-8"),
    "item twice": svi(files={"items.csv": ITEMS + "i3,oven\n"}, place="items.csv:11:", words="more than once"),
    "no words": svi(files={"items.csv": "item,text\n" + "".join(f"i{j},the\n" for j in range(9))}, place="items.csv:"),
    "no table": svi(files={"pairs.csv": None}, place="pairs.csv:", words="no such file"),
    "a folder for a table": svi(files={"items.csv": {}}, place="items.csv:", words="not a file"),
    "an empty folder": svi("--data", "here", "--items", "items.csv", files={"here": {}}, words="--items goes with"),
    "no parquet": svi("--data", "p.parquet", files={"p.parquet": PAIRS}, place="p.parquet:", words="not a readable"),
    "no items": ("svi", ("--data", "pairs.csv", "--out", "old", "--overwrite"), {}, "error: the data", "--items FILE"),
    "all missing": svi(files={"pairs.csv": PAIRS.replace(",1\n", ",0\n")}, words="training set is empty"),
    "no rating": svi("--ratings", "stars", place="pairs.csv:", words="has no column rating"),
    "NaN rating": svi(
        "--ratings", "stars", files={"pairs.csv": STARS.replace("2.5", "nan")}, place="pairs.csv:5:", words="is missing"
    ),
    "blank rating": svi(
        "--ratings", "stars", files={"pairs.csv": STARS.replace("2.5", "")}, place="pairs.csv:5:", words="missing"
    ),
    "moons": svi("--ratings", "moons", words="--ratings is 'moons', but it must be one of auto, clicks, stars"),
    "no stars": cite("--ratings", "stars", words="are all 1: they are clicks; leave --ratings stars out"),
    # contents
    "unknown kind": svi("--contents", "p=sound:p.npy", words="there is no kind 'sound'"),
    "no path": svi("--contents", "p=images:", words="images need a path"),
    "content twice": svi("--contents", "p=p.npy", "p=q.npy", words="--contents has p twice"),
    "content called text": svi("--contents", "text=p.npy", words="cannot be called 'text'"),
    "content that is not there": svi("--contents", "tags", words="pairs has no content of that name"),
    "CiteULike without tags": cite("--contents", "tags", place="tags.dat:", words="no such file"),
    "CiteULike without titles": cite("--contents", "title-tokens", words="no content of that name; it offers none"),
    "truncated array": svi(
        "--contents", "p=p.npy", files={"p.npy": npy(np.ones((9, 2)))[:-1]}, place="p.npy:", words="cut short"
    ),
    "array of objects": svi(
        "--contents", "p=p.npy", files={"p.npy": npy(np.array([[None, 1]] * 9))}, place="p.npy:", words="type object"
    ),
    "NaN vectors": svi(
        "--contents", "p=p.npy", files={"p.npy": npy(np.full((9, 2), np.nan))}, place="p.npy:", words="not finite"
    ),
    "vectors of other items": svi(
        "--contents", "p=p.npy", files={"p.npy": npy(np.ones((8, 2)))}, place="p.npy:", words="has 8 rows"
    ),
    "pixels out of range": svi(
        "--contents", "p=p.npy", files={"p.npy": npy(np.full((9, 4, 4), 2.0))}, place="p.npy:", words="above 1"
    ),
    "ids twice": svi(
        "--contents",
        "p=p.npz",
        files={"p.npz": npy(ids=["i1", "i2", "i1"], values=np.ones((3, 2)))},
        place="p.npz:",
        words="ids[2]: item 'i1' is there more than once",
    ),
    "content of an unknown item": svi(
        "--contents", "p=p.csv", files={"p.csv": "item,text\ni1,sail\ni77,mast\n"}, place="p.csv:3:", words="'i77'"
    ),
    "missing folder": svi("--contents", "p=images:pictures", place="pictures:", words="no such folder"),
    "missing file": svi("--contents", "p=pictures", place="pictures:", words="no such file"),
    "folder without pictures": svi("--contents", "p=p", files={"p": {}}, place="p:", words="has no PNG or JPEG"),
    "ragged pictures": svi(
        "--contents",
        "p=p",
        files={"p/i1.png": png(8, 8), "p/i2.png": png(8, 8), "p/i3.png": png(8, 9)},
        place="p/i3.png:",
        words="has 9 x 8 pixels of 1 channel, but i1.png has 8 x 8",
    ),
    "corrupt PNG": svi(
        "--contents", "p=p", files={"p/i1.png": png(8, 8)[:-30]}, place="p/i1.png:", words="no readable PNG"
    ),
    "picture of an unknown item": svi(
        "--contents", "p=p", files={"p/i77.png": png(8, 8)}, place="p/i77.png:", words="'i77' is not in the data set"
    ),
    "damaged content of a run": (
        "svi",
        ("--data", "saved", *SMALL, "--out", "old", "--overwrite"),
        {"saved/content-p.npy": flipped},
        "content-p.npy:",
        "damaged",
    ),
    # CiteULike
    "counts lie": cite(files={"citeulike/users.dat": "2 0 2\n3 1\n"}, place="users.dat:2:", words="says 3 entries"),
    "id out of range": cite(files={"citeulike/users.dat": "1 7\n1 1\n"}, place="users.dat:1:", words="use 0 to 2"),
    "pair twice": cite(files={"citeulike/users.dat": "2 0 0\n1 1\n"}, place="users.dat:1:", words="more than once"),
    "word out of range": cite(files={"citeulike/mult.dat": "1 5:1\n0\n0\n"}, place="mult.dat:1:", words="use 0 to 1"),
    "NaN count": cite(files={"citeulike/mult.dat": "1 0:nan\n0\n0\n"}, place="mult.dat:1:", words="'0:nan'"),
    "no content": cite(files={"citeulike/mult.dat": "0\n0\n0\n"}, words="no item has any content"),
    "no training": cite(files={"citeulike/users.dat": "0\n0\n"}, words="training set is empty"),
    "lying training file": cite("--train-file", "t", files={"t": "2 0\n1 1\n"}, place="t:1:", words="says 2 entries"),
    "other training file": cite("--train-file", "t", files={"t": "1 1\n1 1\n"}, place="t:1:", words="of these data"),
    # options
    "unknown option": svi("--factor", "3", words="did you mean --factors?"),
    "wrong type": svi("--factors", "many", words="--factors is 'many', but it must be a whole number"),
    "out of range": svi("--factors", "0", words="--factors is 0, but it must be at least 1"),
    "NaN option": svi("--lambda-v", "nan", words="--lambda-v is 'nan', but it must be a number"),
    "seed": svi("--seed", str(2**64), words="--seed is 18446744073709551616, but it must be below"),
    "split seed": svi("--split-seed", "-1", words="--split-seed is -1, but it must be 0 or more"),
    "no choice": svi("--mode", "vb", words="--mode is 'vb', but it must be one of map, bayes"),
    "device": svi("--device", "abacus", words="--device is 'abacus', but it must be cpu, cuda"),
    "map with a guide": svi("--mode", "map", "--guide", "structured", words="--guide is 'structured', but it must be"),
    "structured, non-centred": svi(
        "--guide", "structured", "--parametrization", "non-centred", words="must be mean-field"
    ),
    "no times": svi("--split", "time", words="no times"),
    "no data": svi("--data", "nowhere", place="nowhere:", words="no such data set"),
    "YAML key": svi(
        "--config", "c.yaml", files={"c.yaml": "epochs: 2\nfaktors: 3\n"}, place="c.yaml:2:", words="factors?"
    ),
    "YAML value": svi(
        "--config", "c.yaml", files={"c.yaml": "factors: [1]\n"}, place="c.yaml:1:", words="whole number"
    ),
    "no YAML": svi("--config", "c.yaml", files={"c.yaml": "a: b: c\n"}, place="c.yaml:1:", words="is no YAML"),
    "no config": svi("--config", "c.yaml", place="c.yaml:", words="no such file"),
    "no module": svi("--content-likelihood", "no_such_module.Thing", words="--content-likelihood names the module"),
    "no class": svi("--content-likelihood", "a_plugin_of_none.Thing", words="has no class Thing"),
    "no likelihood": svi("--content-likelihood", "a_plugin_of_none.NoLikelihood", words="is no ContentLikelihood"),
    "no name": svi("--content-likelihood", "poison", words="poison"),
    "support": svi("--content-likelihood", "bernoulli", "--scaling", "none", words="--scaling"),
    # closed form
    "map, diagonal": closed("--mode", "map", "--diagonal", words="--diagonal is True, but it must be left out with"),
    "map, learned": closed("--mode", "map", "--learn-precisions", words="--learn-precisions is True, but it must be"),
    "structured, diagonal": closed("--guide", "structured", "--diagonal", words="left out with --guide structured"),
    "closed, non-centred": closed("--parametrization", "non-centred", words="must be centred in inference.coordinate"),
    "no memory": closed("--guide", "structured", "--max-memory", "1e-9", words="use fewer --factors, or a larger"),
    "another module's option": closed("--init-scale", "1", words="unknown option --init-scale"),
    "begun by another module": (
        "coordinate",
        (*TABLES, *SMALL, "--epochs", "2", "--checkpoint-seconds", "0", "--out", "half", "--resume"),
        {},
        "config.json:",
        "svi",
    ),
    # run folders
    "run exists": ("svi", (*TABLES, *SMALL, "--out", "old"), {}, "old:", "--overwrite"),
    "not a run": svi("--out", "mine", files={"mine/thesis.tex": "x"}, place="mine:", words="no run folder"),
    "out in a file": svi("--out", "one.txt/run", place="one.txt:", words="is a file"),
    "unfinished": ("svi", (*TABLES, *SMALL, "--out", "half"), {}, "half.partial:", "--resume"),
    "nothing to resume": resume("--out", "never", place="never.partial:", words="without --resume"),
    "finished": resume("--out", "old", place="old:", words="the run is finished"),
    "both": resume("--overwrite", words="--resume is True, but it must be given without --overwrite"),
    "resumed with another option": resume("--factors", "3", place="config.json:", words="--factors is 3, but"),
    "resumed with other data": resume(
        files={"pairs.csv": PAIRS + "u1,i7,1\n"}, words="changed since the run was begun"
    ),
    "damaged data of a run": resume(files={"half.partial/config.json": flipped}, place="config.json:", words="damaged"),
    "no run": ask("--user", "u1", files={"old/manifest.json": None}, place="old:", words="no run folder"),
    "flipped byte": ask("--user", "u1", files={"old/posterior.safetensors": flipped}, place="posterior.safetensors:"),
    "truncated": ask(
        "--user", "u1", files={"old/history.csv": lambda raw: raw[:-9]}, place="history.csv:", words="bytes"
    ),
    "flipped byte of the data": test_of(
        "old", files={"old/data/dataset/content.safetensors": flipped}, words="damaged"
    ),
    # recommend and evaluate
    "nobody": ask(words="nobody is named; give --user"),
    "unknown user": ask("--user", "u77", words="no user has the id 'u77'"),
    "unknown similar": ask("--similar", "i77", words="no item has the id 'i77'"),
    "users and items": ask("--similar", "i1", "--user", "u1", words="--similar is about items"),
    "unknown candidate": ask("--user", "u1", "--candidates", "c", files={"c": "i1\ni77\n"}, words="'i77'"),
    "empty candidates": ask("--user", "u1", "--candidates", "c", files={"c": ""}, place="c:", words="empty"),
    "blank candidates": ask("--user", "u1", "--candidates", "c", files={"c": "\n \n"}, place="c:", words="no id"),
    "no candidates": ask("--user", "u1", "--candidates", "c", place="c:", words="no such file"),
    "all excluded": ask("--user", "u1", "--candidates", "one.txt", "--exclude", "one.txt", words="no item is left"),
    "top": ask("--user", "u1", "--top", "0", words="--top is 0, but it must be at least 1"),
    "policy": ask("--user", "u1", "--unknown", "guess", words="--unknown is 'guess'"),
    "format": ask("--user", "u1", "--out", "lists.xlsx", words="--out is 'lists.xlsx', but it must end in"),
    "out nowhere": ask("--user", "u1", "--out", "no/lists.csv", place="no:", words="make it first"),
    "no test pairs": test_of("untested", place="untested:", words="no user has a test item"),
    "no run at all": test_of("never", place="never:", words="no such run folder"),
    "not finished": test_of("half", place="half.partial:", words="not finished"),
    "no RUN": test_of(words="is missing"),
    "cutoffs": test_of("old", "--cutoffs", "0", words="--cutoffs is '0'"),
    "protocol": test_of("old", "--protocol", "mine", words="--protocol is 'mine'"),
}


def run_in_process(command, argv, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"inference.{command}", *argv])
    if command in ("svi", "coordinate"):
        return run_fit(command)
    return run_command(importlib.import_module(f"inference.{command}").main)


def assert_one_line(code, out, err, place, words):
    assert (code, out) == (2, ""), (code, out, err)
    told = re.sub(r"^[\d,]+ pairs train; .* are held out: .*\n", "", err)  # the log's line on the split comes before
    assert told.startswith("error: ") and told.count("\n") == 1 and told.endswith("\n"), err
    assert place in err and words in err, err
    assert "; " in err or "but it must" in err, f"no remedy: {err}"
    assert "Traceback" not in err


@pytest.mark.parametrize("case", CASES)
def test_in_one_line_and_nothing_destroyed(case, work, monkeypatch, capsys):
    command, argv, files, place, words = CASES[case]
    write(work, files)
    before = contents(work)
    code = run_in_process(command, argv, monkeypatch)
    said = capsys.readouterr()
    assert_one_line(code, said.out, said.err, place, words)
    assert contents(work) == before


def test_the_good_inputs_are_good(work, monkeypatch, capsys):
    """The cases above fail for their own reasons: what they are made from works."""
    write(work, {"stars.csv": STARS, "p/i1.png": png(8, 8), "p.npy": npy(np.ones((9, 2))), "p/i3.png": png(8, 8)})
    write(work, {"p.npz": npy(ids=["i1", "i2"], values=np.ones((2, 2))), "p.csv": "item,text\ni1,sail\n"})
    contents = ("--contents", "a=p", "b=p.npy", "c=p.npz", "d=p.csv", "e=tokens:p.csv")
    stars = svi("--data", "stars.csv", "--ratings", "stars", "--train-per-user", "1")
    saved = svi("--data", "saved", *contents)
    saved = (saved[0], tuple(word for word in saved[1] if word not in ("--items", "items.csv")))
    good = (svi(), svi(*contents), stars, saved, closed(), resume(), ask("--user", "u1"), test_of("old"), cite())
    for command, argv, *_ in good:
        assert run_in_process(command, argv, monkeypatch) == 0, capsys.readouterr().err
        capsys.readouterr()
    assert (work / "half").is_dir() and not (work / "half.partial").exists()


def test_damaged_checkpoints(work, monkeypatch, capsys):
    """The newest is passed over for an older one; where none is whole, that is said, and nothing is lost."""
    command, argv, *_ = resume()
    newest, older = sorted((work / "half.partial" / "checkpoint").iterdir(), reverse=True)
    write(newest, {"tensors.safetensors": lambda raw: raw[: len(raw) // 2]})
    write(older, {"meta.json": flipped})
    before = contents(work)
    code = run_in_process(command, argv, monkeypatch)
    said = capsys.readouterr()
    assert_one_line(code, said.out, said.err, "tensors.safetensors:", "no older checkpoint is whole; start anew")
    assert contents(work) == before
    write(older, {"meta.json": flipped})
    assert run_in_process(command, argv, monkeypatch) == 0
    assert (work / "half").is_dir()


def test_an_unreadable_file(work, monkeypatch, capsys):
    opened = os.open

    def refuse(path, *more, **named):
        if Path(path).name == "items.csv":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *more, **named)

    before = contents(work)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        code = run_in_process("svi", svi()[1], patch)
    said = capsys.readouterr()
    assert_one_line(code, said.out, said.err, "items.csv:", "Permission denied")
    assert contents(work) == before


@pytest.mark.slow
@pytest.mark.parametrize("case", ["ragged row", "support", "flipped byte", "no test pairs"])
def test_in_a_process_of_its_own(case, work):
    command, argv, files, place, words = CASES[case]
    write(work, files)
    before = contents(work)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", f"inference.{command}", *argv],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert_one_line(done.returncode, done.stdout, done.stderr, place, words)
    assert contents(work) == before
