"""Command lines: what is read, what is said when it is wrong, and how quickly."""

import subprocess
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from inference import options
from inference.commands import load_class, parse
from inference.commands.options import option_table
from inference.commands.values import must_be
from inference.doctor import DoctorOptions
from pyro_cvae.errors import InputError


@dataclass(frozen=True)
class ShapeOptions:
    """The shape.

    Parameters:
        runs: Run folders.
        factors: Number of factors,
            at least 1 (100 % of them).
        hidden: Sizes of the layers.
        tied: Tie them.
        kind: The kind.
        content_likelihood: One of bernoulli, normal.
        content_likelihood_args: Its arguments.
    """

    runs: tuple[str, ...]
    factors: int = 50
    hidden: tuple[int, ...] = (200, 100)
    tied: bool = False
    kind: Literal["plain", "structured"] = "plain"
    content_likelihood: str = "bernoulli"
    content_likelihood_args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.factors < 1:
            raise InputError(f"--factors is {self.factors}, but it must be at least 1")


@dataclass(frozen=True)
class OtherOptions:
    """The rest.

    Parameters:
        items: A table.
        step: A step size.
        users: Some users.
    """

    items: str | None = None
    step: float | None = None
    users: tuple[str, ...] | None = None


PLUGIN = '''
from models.contents import ContentLikelihood

class Mine(ContentLikelihood):
    """Mine.

    Parameters:
        rate: A rate.
    """

    def __init__(self, rate: float, levels: int = 2):
        super().__init__()

class Other:
    pass
'''


def read(*argv: str) -> tuple[ShapeOptions, OtherOptions]:
    return parse(
        "python -m shape",
        "Makes shapes.",
        (ShapeOptions, OtherOptions),
        argv,
        positionals=("runs",),
        examples=[("python -m shape runs/a", "reads one run")],
    )


def said(*argv: str) -> str:
    with pytest.raises(InputError) as caught:
        read(*argv)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_code == 2
    return text


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with two classes, one of them a content likelihood."""
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    (tmp_path / "my_broken_plugin.py").write_text("1 / 0")
    (tmp_path / "my_needy_plugin.py").write_text("import a_module_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_plugin", "my_broken_plugin", "my_needy_plugin"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "my_plugin"


def test_defaults_flags_and_places() -> None:
    assert read("a") == (ShapeOptions(runs=("a",)), OtherOptions())
    shape, other = read("a", "007", "--factors", "3", "--hidden", "4", "5", "--tied", "--items=04", "--step", "-1e-3")
    assert shape == ShapeOptions(runs=("a", "007"), factors=3, hidden=(4, 5), tied=True)
    assert other == OtherOptions(items="04", step=-1e-3)
    assert read("a", "--kind", "structured", "--users", "3", "04")[1].users == ("3", "04")
    assert read("a", "--tied", "--no-tied")[0].tied is False


def test_help_teaches(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as exit_:
        read("--help")
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "usage: python -m shape RUN [OPTION ...]" in text
    assert "Number of factors, at least 1 (100 % of them). (default: 50)" in text
    assert "--tied, --no-tied" in text and "(default: no)" in text
    assert "--hidden" in text and "(default: 200 100)" in text
    assert "{plain,structured}" in text
    assert "The shape." in text and "The rest." in text
    assert "content-likelihood.ARG" in text and "content-likelihood-args" not in text
    assert text.rstrip().endswith("python -m shape runs/a\n      reads one run")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        read("--version")
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("pyro-cvae ")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--foo"], "unknown option --foo; did you mean --factors?"),
        (["a", "--factor", "3"], "unknown option --factor; did you mean --factors?"),
        (["a", "--no-tie"], "unknown option --no-tie; did you mean --no-tied?"),
        (["a", "--content_likelihood=x"], "unknown option --content_likelihood; did you mean --content-likelihood?"),
        (["a", "--zzzz"], "unknown option --zzzz; python -m shape --help lists all options"),
        (["a", "-x"], "unknown option -x; python -m shape --help lists all options"),
        (["a", "--tied", "3", "--factors", "x"], "--factors is 'x', but it must be a whole number"),
        (["a", "--factors", "3.5"], "--factors is '3.5', but it must be a whole number"),
        (["a", "--factors", "0"], "--factors is 0, but it must be at least 1"),
        (["a", "--hidden", "3", "q"], "--hidden is 'q', but it must be a whole number"),
        (["a", "--step", "small"], "--step is 'small', but it must be a number"),
        (["a", "--kind", "odd"], "--kind is 'odd', but it must be one of plain, structured"),
        (["a", "--factors"], "--factors needs a value; python -m shape --help shows it"),
        (["a", "--config"], "--config needs a value; python -m shape --help shows it"),
        ([], "RUN is missing; give it first, before any option; python -m shape --help shows it"),
    ],
)
def test_a_wrong_word_is_answered_in_one_line(argv: list[str], text: str) -> None:
    assert said(*argv) == text


def test_a_stray_word() -> None:
    with pytest.raises(InputError, match=r"^'3' is not expected here; python -m x --help lists"):
        parse("python -m x", "X.", (OtherOptions,), ["3"])


def test_the_file_gives_way_to_flags(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("# mine\nfactors: 7\nhidden: [3, 4]\nstep: 1e-3\ntied: true\nusers: ['1']\n")
    shape, other = read("--factors", "8", "a", "--config", str(path))
    assert shape == ShapeOptions(runs=("a",), factors=8, hidden=(3, 4), tied=True)
    assert other == OtherOptions(step=1e-3, users=("1",))
    later = tmp_path / "d.yaml"
    later.write_text("factors: 9\n")
    assert read("a", "--config", str(path), f"--config={later}")[0] == ShapeOptions(("a",), 9, (3, 4), True)
    later.write_text("")
    assert read("a", "--config", str(later))[0] == ShapeOptions(("a",))


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("factors: 3\nfactor: 4\n", 2, "unknown key factor; did you mean factors?"),
        ("\nruns: [a]\n", 2, "unknown key runs"),
        ("factors: many\n", 1, "factors is 'many', but it must be a whole number"),
        ("factors: true\n", 1, "factors is True, but it must be a whole number"),
        ("tied: true\nitems: 3\n", 2, "items is 3, but it must be a text in quotes"),
        ("hidden: 200-100\n", 1, "hidden is '200-100', but it must be a list, each a whole number"),
        ("tied: true\nfactors: 0\n", 2, "--factors is 0, but it must be at least 1"),
        ("factors: 1\nfactors: 2\n", 2, "factors stands here a second time; remove one"),
        ("factors: 1\n hidden: [\n", 2, "is no YAML: mapping values are not allowed here"),
        ("- factors\n", 1, "is no list of options; write one 'key: value' a line"),
        ("items: !!python/object/apply:os.getcwd []\n", 1, "items: could not determine a constructor"),
    ],
)
def test_a_wrong_file_is_answered_with_its_line(tmp_path: Path, text: str, line: int, problem: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert said("a", "--config", str(path)).startswith(f"{path}:{line}: {problem}")


def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    assert said("a", "--config", str(path)) == f"{path}: no such file; check the path after --config"
    path.write_bytes(b"items: \xff\n")
    assert said("a", "--config", str(path)) == f"{path}: is not UTF-8 text; save it as UTF-8"
    assert said("a", "--config", str(tmp_path)).startswith(f"{tmp_path}: this is not a file")


def test_a_flag_that_repairs_the_file_is_not_blamed_on_it(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("factors: 3\n")
    assert said("a", "--config", str(path), "--factors", "-1") == "--factors is -1, but it must be at least 1"


def test_print_config_can_be_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["a", "--factors", "3", "--hidden", "4", "5", "--tied", "--step", "0.001", "--users", "7"]
    with pytest.raises(SystemExit) as exit_:
        read(*argv, "--print-config")
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    names = {f.name for f in [*fields(ShapeOptions), *fields(OtherOptions)]} - {"runs"}
    assert set(yaml.safe_load(text)) == names
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert read("a", "--config", str(path)) == read(*argv)


def test_a_plug_in_by_class_path(plugin: str, tmp_path: Path) -> None:
    shape, _ = read("a", "--content-likelihood", f"{plugin}.Mine", "--content-likelihood.rate", "3")
    assert (shape.content_likelihood, shape.content_likelihood_args) == (f"{plugin}.Mine", {"rate": 3.0})
    assert type(shape.content_likelihood_args["rate"]) is float
    assert load_class("content_likelihood", f"{plugin}:Mine") is load_class("content_likelihood", f"{plugin}.Mine")

    path = tmp_path / "c.yaml"
    path.write_text(f"content_likelihood: {plugin}.Mine\ncontent_likelihood_args: {{rate: 3, levels: 4}}\n")
    assert read("a", "--config", str(path))[0].content_likelihood_args == {"rate": 3.0, "levels": 4}
    both = read("a", "--config", str(path), "--content-likelihood.rate=5")[0]
    assert both.content_likelihood_args == {"rate": 5.0, "levels": 4}
    other = read("a", "--config", str(path), "--content-likelihood", "bernoulli")[0]
    assert other.content_likelihood_args == {}


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["my_plugin.Mine"], "Mine needs rate; give --content-likelihood.rate"),
        (
            ["my_plugin.Mine", "--content-likelihood.rate", "x"],
            "--content-likelihood.rate is 'x', but it must be a number",
        ),
        (
            ["my_plugin.Mine", "--content-likelihood.speed", "3"],
            "unknown option --content-likelihood.speed; Mine takes rate, levels",
        ),
        (
            ["my_plugin.Other"],
            "--content-likelihood is my_plugin.Other, which is no ContentLikelihood; "
            "derive it from models.contents.ContentLikelihood",
        ),
        (["my_plugin.Nobody"], "--content-likelihood: the module my_plugin has no class Nobody; check its spelling"),
        (
            ["my_absent_plugin.Mine"],
            "--content-likelihood names the module my_absent_plugin, which cannot be found; "
            "call the command from the folder that holds it, or install it",
        ),
        (
            ["my_needy_plugin.Mine"],
            "--content-likelihood: importing my_needy_plugin failed: No module named 'a_module_that_nobody_has'; "
            "install a_module_that_nobody_has",
        ),
        (
            ["my_broken_plugin.Mine"],
            "--content-likelihood: importing my_broken_plugin failed: ZeroDivisionError: division by zero; "
            "mend that module",
        ),
    ],
)
def test_a_wrong_plug_in_is_answered_in_one_line(plugin: str, argv: list[str], text: str) -> None:
    assert said("a", "--content-likelihood", *argv) == text


def test_arguments_of_the_packages_own_likelihoods() -> None:
    argv = ["a", "--content-likelihood", "normal", "--content-likelihood.lambda-x", "2"]
    assert read(*argv)[0].content_likelihood_args == {"lambda_x": 2.0}
    assert said("a", "--content-likelihood.wrong", "2").startswith("unknown option --content-likelihood.wrong;")


@pytest.mark.parametrize("method", options.METHODS)
def test_every_option_has_a_line_of_help_and_two_never_share_a_name(method) -> None:
    table = option_table(options.Options.classes(method)) | option_table((DoctorOptions,))
    assert [option.name for option in table.values() if not option.help] == []
    for option in table.values():
        must_be(option.hint)


def test_an_option_of_two_classes_is_refused() -> None:
    with pytest.raises(TypeError, match="is an option of OtherOptions too"):
        parse("python -m x", "X.", (OtherOptions, OtherOptions), [])


COMMAND = """
import sys
from inference.commands import parse
from inference.options import DataOptions
from pyro_cvae.errors import run_command
code = run_command(lambda: parse("python -m x", "X.", (DataOptions,)))
assert not {"torch", "pandas", "scipy", "sklearn", "pyro"} & set(sys.modules)
sys.exit(code)
"""


def test_a_wrong_option_ends_in_exit_code_2_without_a_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", COMMAND, "--dato", "x"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown option --dato; did you mean --data?\n"
