"""Sentence vectors of the items' texts, by a network that lies on the disk: ``--contents NAME=embed:MODEL``.

Nothing is downloaded, and no file of the model runs code: weights are read from safetensors, and the parts that its
``modules.json`` names must be the library's own. The library is sentence-transformers (Reimers and Gurevych, EMNLP
2019), an extra.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyro_cvae.data.content import ContentScaling
from pyro_cvae.data.contents import Vectors, is_text
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.errors import InputError, MachineError
from pyro_cvae.text import counted

log = logging.getLogger(__name__)

MOST_WORDS = 24
"""Words by which an item without a title is embedded: its most telling ones, by tf-idf."""
SAFE = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
"""Endings of weights that could be unpickled where no safetensors stand beside them."""
_DEEP = 3
_OWN = "sentence_transformers."


def embedded(dataset: Dataset, model: str) -> Vectors:
    """A vector of unit length for each item that has a title, or where the data have no titles, any word of its text.

    Without titles the text is its :data:`MOST_WORDS` words of largest tf-idf, the most telling first. ``model`` is a
    folder or the name of an installed package that holds one. Raises InputError where there is no text or no model, and
    MachineError where the library is not installed.
    """
    return embed(texts_of_items(dataset), model)


def texts_of_items(dataset: Dataset) -> list[str | None]:
    """The texts that are embedded, ``None`` for an item that has none."""
    if dataset.titles is not None:
        return [title if is_text(title) else None for title in dataset.titles.tolist()]
    words, counts = dataset.content.vocabulary, dataset.content.counts
    if words is None or not counts.nnz:
        raise InputError("the items have neither titles nor words to embed", "give a table of items with texts")
    weights = ContentScaling.fit(counts, "tfidf").transform(counts)
    texts: list[str | None] = []
    for start, stop in zip(weights.indptr[:-1], weights.indptr[1:], strict=True):
        best = np.argsort(-weights.data[start:stop], kind="stable")[:MOST_WORDS]
        texts.append(" ".join(words[word] for word in weights.indices[start + best]) or None)
    return texts


def embed(texts: Sequence[str | None], model: str) -> Vectors:
    """Vectors of unit length of these texts, float32 (n_texts, n_features); blank ones have none."""
    folder = model_folder(model)
    _check_parts(folder)
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar
    except ImportError:
        raise MachineError(
            "embed: needs the package sentence-transformers", "install it with: pip install sentence-transformers"
        ) from None
    there = np.array([bool(text and text.strip()) for text in texts], bool)
    if not there.any():
        raise InputError("no item has a text to embed", "give a table of items with texts")
    log.info("%s embedded by %s", counted(there.sum(), "text", "are"), folder)
    disable_progress_bar()  # of loading, which takes a second
    try:
        network = SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
        )
    except Exception as error:  # whatever is wrong with somebody's files
        told = " ".join(str(error).split())[:200]
        raise InputError(f"is no model that can be read ({told})", "restore it", path=folder) from error
    found = network.encode(
        [text for text in texts if text and text.strip()],
        normalize_embeddings=True,
        convert_to_numpy=True,
        show_progress_bar=sys.stderr.isatty(),
    )
    values = np.zeros((len(texts), found.shape[1]), np.float32)
    values[there] = found
    return Vectors(values, there)


def model_folder(model: str) -> Path:
    """The folder of a model: a path, or inside an installed package of that name, which is not imported."""
    place = Path(model)
    if place.is_dir():
        return place
    spec = None
    if model.replace("-", "_").isidentifier():
        spec = importlib.util.find_spec(model.replace("-", "_"))
    roots = [] if spec is None else spec.submodule_search_locations or []
    for root in map(Path, roots):
        for depth in range(_DEEP):
            if found := sorted(root.glob("*/" * depth + "modules.json")):
                return found[0].parent
    if spec is not None:
        raise InputError(f"the package {model} holds no model", "it needs a folder with modules.json")
    remedy = "give the folder of a sentence-transformers model, or the name of an installed package that holds one"
    raise InputError(f"embed: there is no model {model}", remedy)


def _check_parts(folder: Path) -> None:
    """InputError where loading the model would run code that is not the library's, or unpickle."""
    path = folder / "modules.json"
    try:
        parts = json.loads(path.read_text("utf-8"))
        kinds = [part["type"] for part in parts]
        places = [folder / part["path"] for part in parts]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise InputError("is missing or damaged", "give a model that sentence-transformers saved", path=path) from None
    if strange := [kind for kind in kinds if not (isinstance(kind, str) and kind.startswith(_OWN))]:
        problem = f"names {strange[0]!r}, which is no part of sentence-transformers and could run any code"
        raise InputError(problem, "use a model made of the library's own parts", path=path)
    held = {place: (place / SAFE).exists() for place in (folder, *places)}
    pickled = [
        place for place, safe in held.items() if not safe and any(one.suffix in PICKLES for one in _files(place))
    ]
    if pickled or not any(held.values()):
        place = pickled[0] if pickled else folder
        raise InputError(f"holds no {SAFE}", "save the model again; nothing is unpickled", path=place)


def _files(place: Path) -> list[Path]:
    return [one for one in place.iterdir() if one.is_file()] if place.is_dir() else []
