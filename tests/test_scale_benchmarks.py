"""The benchmarks of lists for everybody, of workers' memory and of the service run, and see what is wrong."""

import pytest

from benchmarks import lists, reading, service

pytestmark = pytest.mark.slow
SMALL = ["--users=300", "--items=400", "--factors=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("more", [[], ["--mode=bayes", "--suffix=.csv"], ["--evaluate"]])
def test_lists_are_measured(folder, more, capsys):
    found = lists.main([*SMALL, f"--folder={folder}", *more])
    assert found["cpu_seconds"] > 0 and 0.05 < found["gib"] < 2
    assert (found["out_mib"] > 0) == ("--evaluate" not in more)
    assert "met: at most 4 GiB" in capsys.readouterr().out


def test_what_fails_is_told(folder):
    with pytest.raises(SystemExit, match="ended with 2"):
        lists.main([*SMALL, f"--folder={folder}", "--more", "probes=0"])


def test_the_service_is_measured(folder, capsys):
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    lists.main([*SMALL, f"--folder={folder}"])
    how = ["--requests=16", "--clients", "1", "4", "--long=160", "--reloads=2", "--threads=1"]
    found = service.main([str(folder / "run-300-400-map"), *how])
    assert [(row["kind"], row["clients"]) for row in found["latency"]] == [
        (kind, n) for kind in ("recommend", "fold-in") for n in (1, 4)
    ]
    assert all(0 < row["p50"] <= row["p99"] for row in found["latency"])
    assert found["memory"][-1][0] == 160 and found["memory"][-1][1] > 50
    assert found["reload"]["reloads"] == 2 and found["reload"]["wrong"] == 0 < found["reload"]["answers"]
    assert found["token"] == [401, 401, 200]
    assert "MISSED: no token" not in capsys.readouterr().out


def test_memory_of_workers_is_measured(capsys):
    rows = reading.main(["--ratings=2000", "--workers", "1", "2", "--factors=4"])
    assert [(row["workers"], row["worker"]) for row in rows] == [(1, 0), (2, 0), (2, 1)]
    assert all(0.02 < row["own"] < 2 and row["seconds"] > 0 for row in rows)
    assert "2,000 pairs in a table" in capsys.readouterr().out
