"""Numbers of things are written by ``counted``: nothing says "1 users", "1 of 4 pairs are"."""

import ast
import re
from pathlib import Path

import pytest

from benchmarks import house
from pyro_cvae.text import counted

ROOT = Path(__file__).parents[2]
NOUNS = (
    "users|items|pairs|fits|ratings|rows|words|features|draws|chains|runs|columns|lines|epochs|sweeps|trials|splits"
    "|workers|factors|texts|ids|values|tokens|cells|lists|entries|contents|clicks|units|seeds|numbers|simulations"
    "|titles|bytes|characters|nodes|tags|scores|steps"
)
FOLLOWS = re.compile(rf"^ (?:[a-z-]+ ){{0,2}}(?:{NOUNS})\b")
IN_LOGS = re.compile(rf"%d (?:[a-z-]+ ){{0,2}}(?:{NOUNS})\b")
A_NUMBER = re.compile(r"\bn_\w+|\bn\b|\blen\(|\bsum\(|\bint\(|count|\boptions\.\w+s\b|\bexport\.draws\b|_n\b")
FIXED = {
    "analysis/exploring/regret.py": "one is written otherwise",
    "inference/doctor.py": "cores have a decimal",
    "inference/serving/guard.py": "a large constant",
    "models/networks/recurrent.py": "a large constant",
    "models/returns.py": "two",
    "models/testing.py": "a number of the test's own",
    "models/testing_contents.py": "a number of the test's own",
    "models/testing_networks.py": "a number of the test's own",
    "models/testing_ratings.py": "a number of the test's own",
}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (counted(1, "user"), "1 user"),
        (counted(0, "user"), "0 users"),
        (counted(1234, "test pair"), "1,234 test pairs"),
        (counted(2, "entry"), "2 entries"),
        (counted(1.0, "day"), "1 day"),
        (counted(2.0, "day"), "2 days"),
        (counted(1, "pair", "are"), "1 pair is"),
        (counted(2, "pair", "have"), "2 pairs have"),
        (counted(1, "pair", "are", of=5), "1 of 5 pairs is"),
        (counted(1, "pair", "were", of=1), "1 of 1 pair was"),
        (counted(3, "pair", of=5000), "3 of 5,000 pairs"),
    ],
)
def test_one_thing_is_no_things(told: str, said: str) -> None:
    assert told == said


def uncounted(tree: ast.AST) -> list[tuple[int, str]]:
    """Line and text of every number that is written before a plural: in f-strings, and in messages of logs."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for value, after in zip(node.values, node.values[1:], strict=False):
                text = after.value if isinstance(after, ast.Constant) else ""
                if isinstance(value, ast.FormattedValue) and FOLLOWS.match(str(text)):
                    given = ast.unparse(value.value)
                    grouped = value.format_spec is not None and "," in ast.unparse(value.format_spec)
                    if grouped or (A_NUMBER.search(given) and "counted(" not in given):
                        found.append((node.lineno, f"{given}{str(text)[:20]}"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and IN_LOGS.search(node.value):
            found.append((node.lineno, node.value[:40]))
    return found


def test_numbers_of_things_are_counted_everywhere() -> None:
    found = [
        f"{file.name}:{line}: {text}" for file in house.files(ROOT)
        if file.name.partition("/")[0] in house.PACKAGES and file.name not in FIXED
        for line, text in uncounted(file.tree)
    ]  # fmt: skip
    assert found == []


@pytest.mark.parametrize(
    "line",
    ['f"{len(ids)} users"', 'f"of {n:,} test pairs"', 'log.info("%d texts are embedded", n)', 'f"{n_users} ids"'],
)
def test_a_new_one_would_be_seen(line: str) -> None:
    assert len(uncounted(ast.parse(line))) == 1
    assert uncounted(ast.parse('f"{name} items; {counted(n, word)} of it"')) == []
