"""Control characters of strangers' texts are shown, in errors, logs and help, and never reach a terminal."""

import logging
import subprocess
import sys
import unicodedata

import pytest

from inference.commands import parse
from inference.options import DataOptions
from pyro_cvae.errors import InputError
from pyro_cvae.text import VisibleFormatter, visible, visible_lines

KEPT = "\u200c\u200d\xad\ufe0f"  # parts of words and emoji


def test_every_control_character_is_shown_and_no_letter_is_touched() -> None:
    for code in range(0x110000):
        char = chr(code)
        control = unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(char) in (
            *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI", "BN"),
        )
        if char in KEPT or unicodedata.category(char) in ("Lu", "Ll", "Lo", "Nd", "So", "Mn", "Zs"):
            assert visible(char) == char, hex(code)
        elif control and unicodedata.category(char) != "Cn":
            assert visible(char) != char, hex(code)
            assert visible(char).isascii(), hex(code)
    for text in (
        "naïve 日本語 \u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 👩\u200d🔬 caf\u0065\u0301",
        "",
        "a  b",
    ):
        assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("\x1b]8;;http://x\x1b\\click", "\\x1b]8;;http://x\\x1b\\click"),
        ("safe\rrm -rf", r"safe\rrm -rf"),
        ("a\x08b\tc\nd", r"a\x08b\tc\nd"),
        ("\x9b31m", r"\x9b31m"),
        ("user\u202etxt.exe", r"user\u202etxt.exe"),
        ("\ud800", r"\ud800"),
        ("line\u2028end", r"line\u2028end"),
        (7, "7"),
    ],
)
def test_shown_as_escapes(text: object, shown: str) -> None:
    assert visible(text) == shown
    shown.encode()  # any stream takes it


def test_errors_and_logs_show_what_they_quote() -> None:
    error = InputError("no user has the id '\x1b[2J\u202e'", "look at \x9b0m", path="a\x1b]0;b", line=3)
    assert str(error) == "a\\x1b]0;b:3: no user has the id '\\x1b[2J\\u202e'; look at \\x9b0m"
    record = logging.LogRecord("pyro_cvae", logging.WARNING, "", 0, "%s\nnext", ("\x1b[2J",), None)
    assert VisibleFormatter("%(message)s").format(record) == "\\x1b[2J\nnext"
    assert visible_lines("a\x1b\n\x07b\n") == "a\\x1b\n\\x07b\n"


@pytest.mark.parametrize("flag", ["--help", "--print-config"])
def test_values_of_a_config_file_are_shown(flag: str, tmp_path, capsys) -> None:
    path = tmp_path / "c.yaml"
    path.write_text('data: "a\\e[2J\\u202eb"\n')
    with pytest.raises(SystemExit):
        parse("x", "X.", (DataOptions,), ["--config", str(path), flag])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "[2J" in out
    if flag == "--print-config":
        path.write_text(out)
        assert parse("x", "X.", (DataOptions,), ["--config", str(path)])[0].data == "a\x1b[2J\u202eb"


def test_a_command_shows_the_name_of_a_missing_file() -> None:
    argv = [sys.executable, "-m", "inference.recommend", "no\x1b[2Jrun", "--user", "1"]
    found = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "\x1b" not in found.stderr
    assert r"no\x1b[2Jrun" in found.stderr
