"""MovieLens-100k, as the wheel of RecBole holds it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.study.wheels import fetch_files

WHEEL = "recbole==1.2.1"
FILES = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}
"""Files of the wheel and their SHA-256."""


def fetch() -> Path:
    """The folder of the two files in the cache, taken from RecBole's wheel if they are not there, and checked."""
    return fetch_files(WHEEL, "recbole/dataset_example/ml-100k", FILES, "recbole-ml-100k")
