"""Tables are read by the calling thread: a worker of Arrow's that is late at the program's end aborts it, code 134."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pyro_cvae.data.registry import load_dataset

READ = """
import os, sys
import pandas, pyarrow.parquet
from pyro_cvae.data.frames import load_tables
from pyro_cvae.data.registry import load_dataset
started = len(os.listdir("/proc/self/task"))
(load_tables if len(sys.argv) > 2 else load_dataset)(*sys.argv[1:])
print(len(os.listdir("/proc/self/task")) - started)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc tells the threads of a process")
@pytest.mark.parametrize("kind", ["a data set as it is kept in a run folder", "somebody's Parquet files"])
def test_reading_starts_no_thread(kind: str, tmp_path: Path) -> None:
    if kind.startswith("a data set"):
        places = [tmp_path / "data"]
        load_dataset("simulated-gaussian").save(places[0])
    else:
        places = [tmp_path / "pairs.parquet", tmp_path / "items.parquet"]
        pd.DataFrame({"user": ["a", "b"] * 500, "item": [str(i) for i in range(1000)]}).to_parquet(places[0])
        items = pd.DataFrame({"item": [str(i) for i in range(1000)], "text": ["trees grow", "rivers flow"] * 500})
        items.to_parquet(places[1])
    done = subprocess.run([sys.executable, "-c", READ, *map(str, places)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr
