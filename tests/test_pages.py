"""What the pages show: every command is taken by its own parser, every question to the service is answered."""

import argparse
import ast
import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import inference
from inference.commands import parsing
from inference.serving.app import PATHS, create_app
from pyro_cvae.data.simulated import simulated
from pyro_cvae.errors import InputError

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
CALLED = re.compile(r"^(?:\w+=\S+ )*(?:\.venv/bin/)?python -m ((?:inference|analysis|benchmarks)\.[\w.]+)(.*)$")
USAGE = re.compile(r"\[|\.\.\.|\{|\bMETHOD\b|\bPART\b")
ELSEWHERE = re.compile(r"\bmy_\w+\.|--start-from|\$")
"""Classes of one's own and a run to go on from, which tests of these pages make, and variables of a loop."""
CONFIG = "factors: 20\n"
LITTLE = {
    "method": "coordinate",
    "guide": "structured",
    "factors": 3,
    "hidden": (6,),
    "pretrain_epochs": 1,
    "epochs": 1,
    "sweeps": 2,
}


class TakenError(BaseException):  # which no command turns into a line
    """A command line was taken, and what it asks for would begin now."""


def code_of(text: str) -> Iterator[str]:
    """The lines of a page's blocks of code, those that a backslash goes on with joined."""
    blocks = re.findall(r"^```(?!python)\w*\n(.*?)^```$|((?:^    .*\n)+)", text, re.M | re.S)
    for fenced, indented in blocks:
        for line in (fenced or re.sub(r"^    ", "", indented, flags=re.M)).replace("\\\n", " ").splitlines():
            yield line.strip()


def commands_of(page: Path) -> list[tuple[str, list[str]]]:
    """Modules and arguments of the commands that a page shows, without those that show a form."""
    found, said = [], dict[str, str]()
    for line in code_of(page.read_text(encoding="utf-8")):
        if kept := re.fullmatch(r'(\w+)="(.*)"', line):
            said[kept[1]] = kept[2]
        line = re.sub(r"\$(\w+)", lambda name: said.get(name[1], name[0]), line)
        if (called := CALLED.match(line)) and not USAGE.search(line) and not ELSEWHERE.search(line):
            words = shlex.split(called[2], comments=True)
            end = next((at for at, word in enumerate(words) if word in ("|", ">", ">>", "&", "&&", "||")), len(words))
            found.append((called[1], words[:end]))
    return found


SHOWN = [(page, *command) for page in PAGES for command in commands_of(page)]


@pytest.fixture
def take(tmp_path, monkeypatch):
    """Whether the command takes these arguments; it stops when it has read them."""
    parse, parse_args = parsing.parse, argparse.ArgumentParser.parse_args

    def parsed(*given, **named):
        parse(*given, **named)
        raise TakenError

    def parsed_args(self, args=None, namespace=None):
        found = parse_args(self, args, namespace)
        if sys._getframe(1).f_globals["__name__"].startswith("inference.commands"):
            return found
        raise TakenError

    def taken(module: str, arguments: list[str]) -> bool:
        main = importlib.import_module(module).main
        for one in list(sys.modules.values()):
            if vars(one).get("parse") is parse and one is not parsing:
                monkeypatch.setattr(one, "parse", parsed)
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed_args)
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        for at, word in enumerate(arguments[:-1]):
            if word == "--config":
                (tmp_path / arguments[at + 1]).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / arguments[at + 1]).write_text(CONFIG)
        try:
            main()
        except TakenError:
            return True
        except SystemExit as ended:
            return ended.code == 0  # --print-config
        return False

    (tmp_path / "docs").mkdir()  # where figures go
    monkeypatch.chdir(tmp_path)
    return taken


def test_the_pages_show_commands() -> None:
    pages = {page.name for page, *_ in SHOWN}
    assert {"README.md", "start.md", "production.md", "service.md", "why.md", "uncertainty.md", "contents.md"} <= pages
    assert len(SHOWN) > 80 and len({module for _, module, _ in SHOWN}) > 20


@pytest.mark.parametrize(
    ("module", "arguments"),
    [pytest.param(m, a, id=f"{page.name}: {' '.join([m, *a])}") for page, m, a in SHOWN],
)
def test_a_command_of_a_page_is_one_that_its_parser_takes(take, module, arguments) -> None:
    assert take(module, arguments)


def test_a_wrong_command_is_not_taken(take) -> None:
    assert not take("benchmarks.lists", ["--usr"])
    with pytest.raises(InputError, match="--tops"):
        take("inference.recommend", ["runs/mine", "--tops", "3"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_python_of_a_page_imports_is_there(page) -> None:
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        for node in ast.parse(block).body:
            if isinstance(node, ast.Import | ast.ImportFrom) and not re.search(
                r"\bmy_|lenskit|rectools", ast.unparse(node)
            ):
                exec(ast.unparse(node), {})


def test_the_service_answers_what_its_page_asks() -> None:
    page = ROOT / "docs" / "service.md"
    fit = inference.fit(simulated(n_users=30, n_items=60, n_words=80), **LITTLE)
    asking = TestClient(create_app(fit, source=lambda: fit), base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1))
    asked = [shlex.split(line) for line in code_of(page.read_text(encoding="utf-8")) if line.startswith("curl ")]
    paths = set()
    for words in asked:
        (url,) = (word for word in words if word.startswith("http://127.0.0.1:8000/"))
        paths.add(url.removeprefix("http://127.0.0.1:8000"))
        if "-d" in words:
            headers = dict([words[words.index("-H") + 1].split(": ")])
            told = asking.post(url, content=words[words.index("-d") + 1], headers=headers)
        else:
            told = asking.request("POST" if "POST" in words else "GET", url)
        assert told.status_code == 200, (words, told.text)
    assert paths == set(PATHS) - {"/", "/openapi.json"}
