"""What is printed: numbers and ids whole at every width, plain columns into a pipe, CSV and JSON that can be read."""

import csv
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len

from inference.fit_command import run_fit
from inference.printing import Sheet, emit, sheet_of, show, write_frame
from inference.progress import Lines
from pyro_cvae.errors import InputError

LONG = "A title that is far too long for any narrow terminal, " * 6
TABLE = pd.DataFrame(
    {
        "user": ["user-000000001"] * 3,
        "item": ["item-123456789", "項目-二百", "c"],
        "title": ["深層学習による推薦システムの研究と応用", LONG, None],
        "score": [-0.123456, 12345.6789, np.nan],
        "count": [1, 22, 333],
    }
)
WHOLE = ("user-000000001", "item-123456789", "項目-二百", "-0.123", "12345.679", "333")


@pytest.fixture
def terminal(monkeypatch, capsys):
    """What a terminal so wide shows of a sheet, without colours."""

    def shown(width: int, sheet: Sheet) -> str:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        show(sheet)
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)

    return shown


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
def test_numbers_and_ids_are_whole_at_every_width(terminal, width):
    text = terminal(width, sheet_of(TABLE, "lists", ["title"]))
    for word in WHOLE:
        assert word in text, word
    if "┃" in text:  # a table: every line fits
        assert max(cell_len(line.rstrip()) for line in text.splitlines()) <= width
    assert "深層学習" in text
    assert "A title that" in text


def test_a_wide_table_of_numbers_comes_in_slices_that_name_their_rows(terminal):
    names = [f"metric@{number}" for number in range(20)]
    sheet = Sheet(["model", *names], [["first", *(f"{k}.125" for k in range(20))], ["second", *["-"] * 20]])
    text = terminal(60, sheet)
    assert max(map(cell_len, text.splitlines())) <= 60
    assert all(name in text for name in names)
    assert all(f"{k}.125" in text for k in range(20))
    assert text.count("first") == text.count("second") > 1


def test_a_pipe_gets_plain_columns_of_the_width_of_the_screen(capsys):
    show(sheet_of(TABLE, "lists", ["title"]))
    title, head, *rows = capsys.readouterr().out.splitlines()
    assert title == "lists"
    assert len(rows) == 3
    for word in WHOLE:
        assert word in "\n".join(rows), word
    score = cell_len(head[: head.index("score") + len("score")])  # numbers end where their head ends
    ends = [cell_len(row[: row.index(n) + len(n)]) for row, n in zip(rows, ("-0.123", "12345.679"), strict=False)]
    assert ends == [score] * 2
    assert "│" not in "".join(rows)
    assert max(map(cell_len, rows)) < 200  # of LONG the beginning


def test_control_characters_are_shown(capsys):
    show(Sheet(["a\tb", "text"], [["\x1b[2Jx", "two\nlines"]], "t\x07", texts=["text"]))
    show("note\x1b]0;\nnext")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert r"\x1b[2Jx" in out
    assert "two lines" in out
    assert out.endswith("\nnext\n")


def test_csv_has_every_number_and_text_in_full(capsys):
    emit([], {"a": TABLE, "b": TABLE[["item"]]}, "csv", notes=["said"])
    said = capsys.readouterr()
    first, second = said.out.split("\n\n")
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(first)), TABLE)
    assert [row[0] for row in csv.reader(io.StringIO(second))] == ["item", *TABLE["item"]]
    assert said.err == "said\n"


def test_json_is_a_list_or_named_lists_and_knows_no_nan(capsys):
    emit([], {"a": TABLE}, "json")
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert rows[0] == {"user": "user-000000001", "item": "item-123456789", "title": TABLE["title"][0]} | {
        "score": -0.123456,
        "count": 1,
    }
    assert (rows[2]["score"], rows[2]["title"], type(rows[2]["count"])) == (None, None, int)
    emit([], {"a": TABLE, "b": TABLE.head(0)}, "json")
    assert {name: len(rows) for name, rows in json.loads(capsys.readouterr().out).items()} == {"a": 3, "b": 0}
    with pytest.raises(InputError, match="one of table, csv, json"):
        emit([], {}, "xml")


def test_a_stream_that_knows_no_unicode(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii", errors="backslashreplace"))
    emit([], {"a": TABLE}, "json")
    show(sheet_of(TABLE, "lists", ["title"]))
    sys.stdout.flush()
    text = raw.getvalue().decode("ascii")
    assert json.loads(text[: text.index("\n]") + 2])[1]["item"] == "項目-二百"
    assert "A title that" in text


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_is_replaced_whole(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    path.write_text("old")
    write_frame(TABLE[["item", "count"]], path)
    read = pd.read_csv(path) if ending == "csv" else pd.read_parquet(path)
    pd.testing.assert_frame_equal(read, TABLE[["item", "count"]])
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_progress_into_a_file_is_a_line_an_epoch_and_in_long_fits_one_every_few_seconds(monkeypatch):
    monkeypatch.setattr("inference.progress.SECONDS", 2.0)
    now, stream = [0.0], io.StringIO()
    lines = Lines(stream, free=3, clock=lambda: now[0])
    for epoch in range(100):
        now[0] = 0.1 * epoch
        lines.tell("content" if epoch < 50 else "joint", f"{epoch + 1}/100", always=epoch == 99)
    told = [int(line.split()[1].split("/")[0]) for line in stream.getvalue().splitlines()]
    assert told == [1, 2, 3, 23, 43, 51, 71, 91, 100]  # then each 2 s, the first of a phase and the last


@pytest.mark.parametrize("quiet", [False, True])
def test_a_fit_without_a_terminal_writes_a_line_an_epoch(tmp_path, monkeypatch, capsys, quiet):
    argv = ["--factors", "2", "--hidden", "4", "--pretrain-epochs", "2", "--epochs", "3", "--sweeps", "2"]
    argv += ["--threads", "1", "--out", str(tmp_path / "run"), *["--quiet"] * quiet]
    monkeypatch.setattr(sys, "argv", ["inference.coordinate", *argv])
    assert run_fit("coordinate") == 0
    lines = [line.split()[:2] for line in capsys.readouterr().err.splitlines() if line.endswith(" s]")]
    places = [["content", "1/7"], ["content", "2/7"], *(["joint", f"{k}/7"] for k in (3, 4, 5))]
    places += [["sweep", "6/7"], ["sweep", "7/7"]]
    assert lines == ([] if quiet else places)


def test_a_reader_that_has_gone_does_not_stop_the_work():
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    lines = Lines(Gone())
    for epoch in range(3):
        lines.tell("joint", f"{epoch}/3")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_any_text_can_be_written_to_any_stream(encoding):
    code = "from pyro_cvae.errors import run_command; run_command(lambda: print('日本 \\ud800 ü'))"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    expected = "日本 \\ud800 ü".encode(encoding, "backslashreplace")
    assert done.stdout.strip() == expected
