"""Reading a finished run: every file is compared to the manifest, and nothing else is read."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from pyro_cvae.checks import check_json
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError
from pyro_cvae.history import checked_metrics, read_history
from pyro_cvae.listed import Listed, check_schema, read_json, read_manifest, verify
from pyro_cvae.runs.config import CONFIG
from pyro_cvae.runs.folders import folder_of
from pyro_cvae.runs.tensors import has_tensors, read_tensors
from pyro_cvae.trust import Trust, as_paths, only_trusted

_AGAIN = "fit again or copy the folder again"


class Run:
    """A run folder whose files have been verified; made by :func:`open_run`.

    ``files`` are the entries of its manifest, and all that is read; ``trust`` the class paths that it may import.
    """

    def __init__(
        self, path: Path, config: dict[str, Any], files: Mapping[str, Mapping[str, Any]], trust: Trust = ()
    ) -> None:
        self.path, self.config, self.files = path, config, files
        self.trust = as_paths(trust)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def reading(self) -> AbstractContextManager[None]:
        """While its names are made into classes: those of ``trust`` alone are imported."""
        return only_trusted(self.path, self.trust)

    def _file(self, name: str) -> Path:
        if name not in self.files:
            kind = Path(name).suffix
            others = ", ".join(file for file in self.files if file.endswith(kind) and "/" not in file) or "none"
            raise InputError(f"the run has no {name}", f"of that kind it has: {others}", path=self.path)
        return Listed(self.path, self.files).file(name, _AGAIN)

    def tensors(self, name: str = "posterior") -> dict[str, Tensor]:
        """The tensors of ``<name>.safetensors``, on the CPU; InputError where the run has none of that name."""
        listed, file = Listed(self.path, self.files), f"{name}.safetensors"
        if not has_tensors(listed, file):
            self._file(file)
        return read_tensors(listed, file, _AGAIN)

    def json(self, name: str) -> Any:
        """The content of ``<name>.json``; InputError where the run has none of that name."""
        return read_json(self._file(f"{name}.json"), _AGAIN)

    def metrics(self) -> dict[str, Any]:
        """The metrics that were computed at the end of the fit; InputError where they are none."""
        return checked_metrics(self.json("metrics"), self.path / "metrics.json")

    def history(self) -> pd.DataFrame:
        """The history of the fit: a row an epoch; InputError where it is no such table."""
        return read_history(self._file("history.csv"))

    def dataset(self) -> Dataset:
        """The data that were fitted; InputError where the run was exported without users."""
        with self.reading():
            return Dataset.load(self._folder("dataset"))

    def split(self) -> Split:
        """The split that was fitted; InputError where the run was exported without users."""
        return Split.load(self._folder("split"))

    def items(self) -> Dataset:
        """Ids, titles and content of the items, as a data set without users; it is there in every run with data."""
        with self.reading():
            return _without_users(Dataset.load(self._folder("dataset", of_users=False)))

    def _folder(self, name: str, of_users: bool = True) -> Listed:
        if of_users and self.config.get("without_users"):
            raise InputError(
                "the run was exported without users: it holds no user vectors, user ids, ratings or split",
                "use the run that it was exported from",
                path=self.path,
            )
        if not any(file.startswith(f"data/{name}/") for file in self.files):
            raise InputError(f"the run holds no {name}", "fit it with its data", path=self.path)
        return Listed(self.path, self.files).within(f"data/{name}")


def _without_users(dataset: Dataset) -> Dataset:
    """The items of a data set, with no users, no ratings, and no truth (which has users in it)."""
    nothing = Interactions.from_arrays([], [], n_users=0, n_items=dataset.n_items)
    return dataclasses.replace(dataset, interactions=nothing, user_ids=np.array([], object), truth=None)


def open_run(path: str | os.PathLike[str], trust: Trust = ()) -> Run:
    """Open a finished run folder, with every file compared to the manifest (size and SHA-256).

    Files that the manifest does not list are never read. ``trust`` are the paths of classes outside of the package that
    the run may import (docs/security.md); here nothing is imported yet.

    Raises:
        InputError: No run there, not finished, written by a newer version, or a file missing, truncated or changed.
    """
    path, trust = folder_of(path), as_paths(trust)
    files = read_manifest(path, _AGAIN)
    if "config.json" not in files:
        raise InputError("is damaged: config.json is not in it", _AGAIN, path=path / "manifest.json")
    verify(path, files, _AGAIN)
    config = read_json(path / "config.json", _AGAIN)
    if not isinstance(config, dict):
        raise InputError("is damaged: no config", _AGAIN, path=path / "config.json")
    check_schema(config, path / "config.json", _AGAIN)
    check_json(config, CONFIG, path / "config.json", optional=CONFIG)
    return Run(path, config, files, trust)
