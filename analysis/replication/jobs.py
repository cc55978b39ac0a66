"""Fits to be made: what identifies each, and which share their pre-training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from analysis.kinds import Part
from analysis.replication.methods import PER_USER, Method, methods_of
from analysis.replication.options import PaperOptions
from inference.evaluation.rivals import rival
from inference.keywords import options_of
from inference.options import Options
from inference.options.data import DataOptions
from inference.options.run import RunOptions
from inference.pretrained import PRETRAINING

MEASURED = 1
"""Counts up when rows of results come to hold something else; rows of another number are not used."""
_NOT_THE_FIT = {"threads", "validate_every", "patience", *RunOptions.__dataclass_fields__}
_OF_SEVERAL_CONTENTS = {"balance"}
_OF_DATA = set(DataOptions.__dataclass_fields__) - {"scaling"}


@dataclass(frozen=True)
class Job:
    """A method on one split.

    Parameters:
        data: As ``--data`` has it.
        fingerprint: Of the data set with its one bag of words.
        per_user: Training items a user, the paper's P.
        seed: Of the split.
        method: What is fitted.
    """

    data: str
    fingerprint: str
    per_user: int
    seed: int
    method: Method

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) of all that the numbers depend on: data, split and options, but not the method's name."""
        return _digest([MEASURED, self.fingerprint, self.per_user, self.seed, identity(self.method)])

    @cached_property
    def group(self) -> str:
        """Jobs of one group go on from the same pre-trained networks."""
        if not self.method.preset:
            return f"{self.data} {self.method.name}"
        known = _known(self.method.preset, json.dumps(self.method.changes, sort_keys=True))
        return f"{self.data} {_digest([{name: known[name] for name in PRETRAINING}])}"


def options_for(method: Method, threads: int = 1) -> Options:
    """The options of a method with a preset: point estimates by coordinate ascent."""
    return options_of("coordinate", method.preset, {"mode": "map", "threads": threads, **method.changes})


@cache
def _known(preset: str, changes: str) -> dict[str, Any]:
    """All options of a preset with changes, which are JSON; reading them takes a while."""
    return options_for(Method("", "", preset, json.loads(changes))).to_dict()


def identity(method: Method) -> dict[str, Any]:
    """What a fit of a method depends on, beside data and split.

    Options at their defaults are left out, so that a later option, at its default, makes no other fit of it; nor is one
    of several contents, which the study has not.
    """
    if not method.preset:
        rival(method.name)
        return {"rival": method.name}
    known = _known(method.preset, json.dumps(method.changes, sort_keys=True))
    usual = Options.of("coordinate").to_dict()
    return {
        name: value
        for name, value in known.items()
        if name not in _NOT_THE_FIT | _OF_DATA | _OF_SEVERAL_CONTENTS and value != usual[name]
    }


def jobs_of(options: PaperOptions, part: Part, fingerprints: dict[str, str]) -> list[Job]:
    """The fits of a part, on every data set, by method; ``fingerprints`` by ``--data``."""
    return [
        Job(data, fingerprint, per_user, seed, method)
        for data, fingerprint in fingerprints.items()
        for method in methods_of(part, options.methods)
        for per_user in PER_USER[part]
        for seed in range(options.n_splits(part))
    ]


def grouped(jobs: Iterable[Job], done: Iterable[str]) -> list[list[Job]]:
    """The jobs that are not done, each once, in groups with the same pre-training, in order of first appearance."""
    seen, groups = set(done), dict[str, list[Job]]()
    for job in jobs:
        if job.key not in seen:
            seen.add(job.key)
            groups.setdefault(job.group, []).append(job)
    return list(groups.values())


def _digest(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()
