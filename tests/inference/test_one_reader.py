"""Of several workers of a machine one reads the data, and all have them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from inference.one_reader import read_once
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import Split, nothing_held_out
from pyro_cvae.errors import InputError
from tests.inference.test_workers import FIT, together

READS = """
import sys
from pathlib import Path
from inference.algorithms.workers import here, leave
from inference.one_reader import read_once
from tests.inference.test_one_reader import small

def read():
    Path(sys.argv[1]).open("a").write("read\\n")
    return small()

dataset, split = read_once(read)
Path(sys.argv[2], str(here().rank)).write_text(dataset.fingerprint() + split.fingerprint())
leave()
"""


def small() -> tuple[Dataset, Split]:
    dataset = simulated(n_users=20, n_items=30, n_words=40, n_factors=3)
    return dataset, nothing_held_out(dataset)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files of no name are written."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_two_workers_read_once_and_leave_nothing_behind(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "reads.py").write_text(READS)
    (tmp_path / "found").mkdir()
    command = [str(tmp_path / name) for name in ("reads.py", "log", "found")]
    done = together(2, *command, PYTHONPATH=str(Path(__file__).parents[2]))
    assert done.returncode == 0, done.stderr
    dataset, split = small()
    found = {path.name: path.read_text() for path in (tmp_path / "found").iterdir()}
    assert found == dict.fromkeys(("0", "1"), dataset.fingerprint() + split.fingerprint())
    assert (tmp_path / "log").read_text() == "read\n"
    assert not list(temporary.glob("pyro-cvae-*"))


def test_the_reader_has_what_is_no_array_too(temporary: Path) -> None:
    dataset, split = small()
    found, found_split = read_once(lambda: (dataset, split))
    assert found.fingerprint() == dataset.fingerprint() and found_split.fingerprint() == split.fingerprint()
    assert found.truth is dataset.truth and found.interactions is not dataset.interactions
    assert not list(temporary.iterdir())


def test_an_error_of_reading_is_raised(temporary: Path) -> None:
    def read() -> tuple[Dataset, Split]:
        raise InputError("there is no such thing", "look elsewhere")

    with pytest.raises(InputError, match="there is no such thing"):
        read_once(read)


def test_an_error_is_told_by_one_worker_and_ends_all(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("user,item\na,\n")
    how = ["--data", str(tmp_path / "ratings.csv"), "--out", str(tmp_path / "run")]
    done = together(2, *FIT, *how)
    assert done.returncode == 1 and done.stderr.count("error: ") == 1, done.stderr
    assert "ratings.csv:2" in done.stderr and not list(temporary.glob("pyro-cvae-*"))
