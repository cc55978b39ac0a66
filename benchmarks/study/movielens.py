"""MovieLens-100k, as the wheel of RecBole holds it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from pyro_cvae.data.registry import cache_folder
from pyro_cvae.errors import InputError, MachineError

WHEEL = "recbole==1.2.1"
FILES = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}
"""Files of the wheel and their SHA-256."""


def fetch() -> Path:
    """The folder of the two files in the cache, taken from RecBole's wheel if they are not there, and checked."""
    folder = cache_folder() / "recbole-ml-100k"
    if not all((folder / name).exists() for name in FILES):
        with tempfile.TemporaryDirectory() as scratch:
            ask = [sys.executable, "-m", "pip", "download", WHEEL, "--no-deps", "--quiet", "--dest", scratch]
            answer = subprocess.run(ask, capture_output=True, text=True)
            if answer.returncode:
                reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise MachineError(f"pip cannot download {WHEEL} ({reason})", "give the folder of ml-100k with --data")
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                folder.mkdir(parents=True, exist_ok=True)
                for name in FILES:
                    (folder / name).write_bytes(archive.read(f"recbole/dataset_example/ml-100k/{name}"))
    for name, known in FILES.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != known:
            raise InputError("is not the file of the wheel", "delete it to fetch it again", path=folder / name)
    return folder
