"""From a name or a path to a data set: simulators, CiteULike (downloaded and cached), folders and tables."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from platformdirs import user_cache_path

from pyro_cvae.data.atomic import load_atomic
from pyro_cvae.data.citeulike import load_citeulike, read_citations, read_tags
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.files import PathLike, read_bytes
from pyro_cvae.data.frames import load_tables
from pyro_cvae.data.names import NAMES, check_there
from pyro_cvae.data.readers import with_contents
from pyro_cvae.data.reading import Reading
from pyro_cvae.data.simulated import simulated, simulated_gaussian, simulated_stars
from pyro_cvae.data.sources import Source, parse_all
from pyro_cvae.data.text import consent
from pyro_cvae.errors import InputError, MachineError
from pyro_cvae.kinds import Ratings
from pyro_cvae.text import counted

log = logging.getLogger(__name__)

GITHUB = "https://raw.githubusercontent.com"
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class RemoteFile:
    """One file of a public repository at one commit: ``{mirror}/{source}``, with the git blob sha1 of its bytes."""

    name: str
    source: str
    sha1: str


_T = "js05212/citeulike-t/4f103c6ea0fe407b23be230837b65517e613c34a/"
_A = "js05212/citeulike-a/91b603922d7f2d3db18071d4798bf78c9c5d1680/"
_CVAE = "eelxpeng/CollaborativeVAE/f2b521656b33cfba033ddf3d7150ab7fd0cff8d3/data/citeulike-t/"
_TITLES = "ericproffitt/TopicModelsVB.jl/a91ae62af7fac40d27eb4776be8c79c59bac96b7/datasets/citeu/"

REMOTE: dict[str, tuple[RemoteFile, ...]] = {
    "citeulike-t": (
        RemoteFile("users.dat", _T + "users.dat", "a363574955fa4def72e3025ee79c2e36b9a05fd0"),
        RemoteFile("mult.dat", _T + "mult.dat", "2805aec9d45376f5c2383db8bb0e0bed01290cb1"),
        RemoteFile("vocabulary.dat", _T + "vocabulary.dat", "4f16a05cde545a2e84ac09bc6ecedb3b560c4f5c"),
        RemoteFile("cf-train-1-users.dat", _CVAE + "cf-train-1-users.dat", "d7b5a1f1b046273e43c4a6d8c74e1dbac28e6e60"),
        RemoteFile(
            "cf-train-10-users.dat", _CVAE + "cf-train-10-users.dat", "f006b9c971c6a006c42f7fee253febec76ea34c6"
        ),
    ),
    "citeulike-a": (
        RemoteFile("users.dat", _A + "users.dat", "01c329a6df4e883f3282421557543a547eada9de"),
        RemoteFile("mult.dat", _A + "mult.dat", "5df76b81fd9814116ed143bda6e8e843ba167123"),
        RemoteFile("vocabulary.dat", _A + "vocabulary.dat", "06c634403471aaafbf4ea1f71324c1b0038640ab"),
        RemoteFile("titles.txt", _TITLES + "citeutitles.txt", "cd04a7b2e8a685416d1d1bb428558c5be55f8680"),
    ),
}

FURTHER: dict[str, dict[str, tuple[RemoteFile, ...]]] = {
    "tags": {
        "citeulike-t": (
            RemoteFile("tags.dat", _T + "tags.dat", "903eb3fcb0118a9caa1d36ccd27579ebceacd237"),
            RemoteFile("tag-item.dat", _T + "tag-item.dat", "017f7e39c6d48a231a9a71c2e55c91624e6ec624"),
        ),
        "citeulike-a": (
            RemoteFile("tags.dat", _A + "tags.dat", "231dccc10c3b5ecb421e028528072b652c67aa04"),
            RemoteFile("item-tag.dat", _A + "item-tag.dat", "f9e559356b1a84ba3c709a7cb4bc87fea2dad459"),
        ),
    },
    "citations": {
        "citeulike-t": (RemoteFile("citations.dat", _T + "citations.dat", "276a5210e567f281c0f934a5c6ce87373fdc9979"),),
        "citeulike-a": (RemoteFile("citations.dat", _A + "citations.dat", "5e8d91150d1bc1f8ce424a2ebe224a4fd1242e53"),),
    },
}
"""Files that a further content alone needs, by its name and that of the data."""
OWN = {"tags": read_tags, "citations": read_citations}
"""Further contents of CiteULike's folders."""

SIMULATED: dict[str, Callable[..., Dataset]] = {
    "simulated": simulated,
    "simulated-gaussian": simulated_gaussian,
    "simulated-stars": simulated_stars,
}


def load_dataset(
    name_or_path: PathLike,
    items: PathLike | None = None,
    contents: Iterable[str] = (),
    *,
    ratings: Ratings = "clicks",
    reading: Reading | None = None,
) -> Dataset:
    """The data set of a name (:data:`pyro_cvae.data.names.NAMES`), a folder or a file.

    Parameters:
        name_or_path: What it is.
        items: The table of items, where that is a table of interactions.
        contents: Further contents of the items, each ``NAME[=[KIND:]PATH]``
            (:class:`~pyro_cvae.data.sources.Source`). Without a path it is what the data have themselves: a column of
            the table of items, ``titles`` and ``title-tokens`` where there are titles, ``tags`` and
            ``citations`` of CiteULike.
        ratings: ``clicks``: every pair of a table or ``.inter`` file is a 1 whose rating, if it has one, is above 0;
            ``stars``: its column ``rating`` is R_ij.
            Saved data and simulations have the ratings that they have; they, too, must not be all 1 for ``stars``.
        reading: How tables are read: names of columns, separator, encoding, tokenizer and the like.

    A folder is one that ``Dataset.save`` wrote, CiteULike's, or RecBole's atomic files; a file is a table of
    interactions (CSV, Parquet), with ``items`` the table of items, or a RecBole ``.inter`` file. Raises InputError
    with the remedy for anything else, and MachineError where a download fails.
    """
    sources = parse_all(contents)
    reading = reading or Reading()
    consent_to(reading)
    dataset = _load(os.fspath(name_or_path), items, sources, ratings, reading)
    if ratings == "stars":
        check_stars(dataset)
    if not sources:
        return dataset
    return with_contents(dataset, sources, reading=reading)


def consent_to(reading: Reading) -> None:
    """A tokenizer that the caller names is the caller's own word that it may be imported."""
    if not reading.own_words:
        consent([reading.tokenizer])


def check_stars(dataset: Dataset) -> None:
    """Raise InputError where the ratings are all 1."""
    if (dataset.interactions.ratings[dataset.interactions.observed] == 1).all():
        raise InputError(f"the ratings of {dataset.name} are all 1: they are clicks", "leave --ratings stars out")


def _load(
    name: str, items: PathLike | None, contents: tuple[Source, ...], ratings: Ratings, reading: Reading
) -> Dataset:
    check_there(name)
    if items is not None and (name in NAMES or Path(name).is_dir()):
        raise InputError(f"--items goes with a table of interactions, not with {name}", "leave it out")
    if name in SIMULATED:
        return SIMULATED[name]()
    if name in REMOTE:
        return _load_citeulike(fetch(name, _asked(contents)), contents)
    path = Path(name)
    if path.is_dir():
        return _load_folder(path, contents, ratings, reading)
    if path.suffix == ".inter":
        return load_atomic(path, items, ratings=ratings, contents=contents, reading=reading)
    return load_tables(path, items, ratings=ratings, contents=contents, reading=reading)


def _load_folder(path: Path, contents: tuple[Source, ...], ratings: Ratings, reading: Reading) -> Dataset:
    if (path / "dataset.json").exists():
        return Dataset.load(path)
    if (path / "users.dat").exists():
        return _load_citeulike(path, contents)
    if any(path.glob("*.inter")):
        return load_atomic(path, ratings=ratings, contents=contents, reading=reading)
    raise InputError(
        "no data set in this folder",
        "it needs users.dat (CiteULike), a .inter file (RecBole) or dataset.json (saved by this program)",
        path=path,
    )


def _load_citeulike(folder: Path, contents: tuple[Source, ...]) -> Dataset:
    dataset = load_citeulike(folder)
    return replace(dataset, others={name: OWN[name](folder, dataset.n_items) for name in _asked(contents)})


def _asked(contents: tuple[Source, ...]) -> list[str]:
    """Which of CiteULike's further contents are asked for; InputError for another kind than words."""
    asked = [source for source in contents if source.name in OWN and source.path is None]
    for source in asked:
        if source.kind == "tokens":
            raise InputError(f"--contents {source.name}=tokens:, but {source.name} have no order", "leave tokens: out")
    return [source.name for source in asked]


def cache_folder() -> Path:
    """Where downloads are kept: ``PYRO_CVAE_CACHE``, or the user's cache folder of the platform."""
    if chosen := os.environ.get("PYRO_CVAE_CACHE"):
        return Path(chosen)
    return user_cache_path("pyro-cvae")


def git_blob_sha1(content: bytes) -> str:
    """What ``git hash-object`` says: the SHA-1 of ``blob <length>``, a NUL and the bytes."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def fetch(name: str, further: Iterable[str] = ()) -> Path:
    """The folder in the cache that holds the files of ``name``, downloading those that are not there.

    The files of :data:`FURTHER` contents are among them where these are named.

    Every file is checked against its git blob sha1, cached ones too, and moved into place only when it is right.
    ``PYRO_CVAE_MIRROR`` replaces https://raw.githubusercontent.com as the start of the addresses. Raises InputError
    for wrong bytes, MachineError where there is no network or the cache cannot be written.
    """
    folder = cache_folder() / name
    for remote in (*REMOTE[name], *(file for content in further for file in FURTHER[content][name])):
        path = folder / remote.name
        if path.exists():
            if git_blob_sha1(read_bytes(path)) != remote.sha1:
                raise InputError(
                    "is not the published file (wrong git hash)", "delete it to download it again", path=path
                )
            continue
        address = f"{os.environ.get('PYRO_CVAE_MIRROR', GITHUB).rstrip('/')}/{remote.source}"
        content = _download(address, folder)
        if git_blob_sha1(content) != remote.sha1:
            raise InputError(
                f"what {address} sent is not the published file (wrong git hash)",
                f"try again, or fetch the file by hand into {folder}",
                path=path,
            )
        _write_atomically(path, content)
        log.info("downloaded %s (%s) into %s", address, counted(len(content), "byte"), folder)
    log.info("%s is read from %s", name, folder)
    return folder


def _download(address: str, folder: Path) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer:
            return answer.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            reason: object = f"HTTP {error.code}"
        else:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise MachineError(
            f"{address} cannot be downloaded ({reason})",
            f"connect to the network, set PYRO_CVAE_MIRROR, or fetch the file by hand into {folder}",
        ) from None


def _write_atomically(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise MachineError(
            f"the cache cannot be written ({error.strerror})",
            "set PYRO_CVAE_CACHE to a folder you own",
            path=path.parent,
        ) from None
