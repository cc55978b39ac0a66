"""Texts to words: tokenisers by name or by the path of a function, and what is doubtful about the words."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
import scipy.sparse as sp

from pyro_cvae.data.reading import TOKENIZERS
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted
from pyro_cvae.trust import import_named, is_path

log = logging.getLogger(__name__)

Tokenizer = Callable[[str], list[str]]

WORDS = re.compile(r"(?u)\b\w+\b").findall
"""Words as sequences of tokens have them by default; word counts leave out those of one character and stop words."""
UNSPACED = (
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9d"  # Hiragana, Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\u3005\u3007"  # Han
    "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
)
"""Characters of scripts that are written without blanks between words."""
_UNSPACED_RUN = re.compile(f"([{UNSPACED}]+)")
LONE, MANY, UNSPACED_SHARE = 0.8, 0.5, 0.1
"""Shares of words of one item alone, of texts of one word and of texts without blanks that are told in the log."""

_consented: set[str] = set()


def consent(paths: Iterable[str]) -> None:
    """Allow the import of these functions by their paths, which runs their modules, in this process."""
    _consented.update(map(_spelled, paths))


def tokenizer_of(name: str) -> Tokenizer:
    """The tokeniser of that name: a text to its words, in their order.

    - ``words``: runs of letters and digits, in small letters.
    - ``unicode-words``: the same of any script: marks belong to their letters, and forms that differ in width or
      composition are one (NFKC), as are those that differ in case.
    - ``bigrams``: the same, and where a script has no blanks between words, overlapping pairs of its characters.
    - the path of a function, ``my_module.tokenize``, or of a class without arguments whose instances can be called.

    Raises InputError for a path without consent (:func:`consent`), or one that leads nowhere.
    """
    own: dict[str, Tokenizer] = {
        "words": lambda text: WORDS(text.lower()),
        "unicode-words": unicode_words,
        "bigrams": bigrams,
    }
    if name in own:
        return own[name]
    if not is_path(name):
        must = f"one of {', '.join(TOKENIZERS)}, or the path of a function"
        raise InputError(f"the tokenizer is {name!r}, but it must be {must}")
    if _spelled(name) not in _consented:
        problem = f"the tokenizer {name} is not the package's own, and importing it runs code"
        raise InputError(problem, f"if you know it, consent with --trust {name}")
    return _checked(name, _imported(name))


def unicode_words(text: str) -> list[str]:
    """Words of any script; see :func:`tokenizer_of`."""
    return _word_pattern().findall(unicodedata.normalize("NFKC", text).casefold())


def bigrams(text: str) -> list[str]:
    """Words, and pairs of characters where there are no blanks; see :func:`tokenizer_of`."""
    tokens: list[str] = []
    for word in unicode_words(text):
        for part in filter(None, _UNSPACED_RUN.split(word)):
            if len(part) > 1 and _UNSPACED_RUN.fullmatch(part):
                tokens += [part[at : at + 2] for at in range(len(part) - 1)]
            else:
                tokens.append(part)
    return tokens


@cache
def _word_pattern() -> re.Pattern[str]:
    marks = "".join(
        f"{re.escape(chr(code))}" for code in range(0x300, 0x20000) if unicodedata.category(chr(code)) in ("Mn", "Mc")
    )
    return re.compile(rf"[\w{marks}]+")


def _spelled(path: str) -> str:
    return path.replace(":", ".")


def _imported(path: str) -> Callable[[str], list[str]]:
    module_name, _, name = _spelled(path).rpartition(".")
    try:
        found = import_named(path)
        made = found() if isinstance(found, type) else found
    except ModuleNotFoundError as error:
        problem = f"--tokenizer: importing {module_name} failed: {error}"
        raise InputError(problem, "call the command from the folder that holds it, or install it") from None
    except InputError:
        raise
    except AttributeError:
        raise InputError(f"--tokenizer: the module {module_name} has no {name}", "check its spelling") from None
    except Exception as error:
        problem = f"--tokenizer: importing {path} failed: {type(error).__name__}: {error}"
        raise InputError(problem, "mend that module") from error
    if not callable(made):
        raise InputError(f"--tokenizer: {path} is no function of a text", "give one that returns a list of words")
    return made


def _checked(name: str, function: Callable[[str], list[str]]) -> Tokenizer:
    """The function with what it returns checked; its own errors name it."""

    def tokens(text: str) -> list[str]:
        try:
            words = list(function(text))
        except Exception as error:
            shown = f"{type(error).__name__}: {error}"
            raise InputError(f"the tokenizer {name} failed for the text {text[:40]!r}: {shown}", "mend it") from error
        if not all(isinstance(word, str) for word in words):
            raise InputError(f"the tokenizer {name} returned no list of texts", "return a list of str")
        return [word.encode("utf-8", "replace").decode() for word in words if word]

    return tokens


def tell_doubts(counts: sp.csr_matrix, texts: Sequence[str | None], tokenizer: str) -> None:
    """A line in the log where words say little of the items: each in one item alone, or a single word a text.

    ``counts`` (n_texts, n_words) are those of all words. Sequences of fewer than three texts are passed over.
    """
    if counts.shape[0] < 3:
        return
    unspaced = sum(bool(text and _UNSPACED_RUN.search(text)) for text in texts)
    if tokenizer in ("words", "unicode-words") and unspaced > UNSPACED_SHARE * len(texts):
        log.warning(
            "%s in a script without blanks between words, of which whole phrases count as one word; "
            "--tokenizer bigrams takes pairs of characters",
            counted(unspaced, "text", "are", of=len(texts)),
        )
        return
    remedy = "; --tokenizer takes others, or one of your own" if tokenizer == "words" else ""
    per_text = np.diff(counts.indptr)
    n_texts, short = int((per_text > 0).sum()), int((per_text == 1).sum())
    if short > MANY * n_texts:
        log.warning("%s of a single word%s", counted(short, "text", "are", of=n_texts), remedy)
    items = np.bincount(counts.indices, minlength=counts.shape[1])
    n_words, lone = int((items > 0).sum()), int((items == 1).sum())
    if lone > LONE * n_words:
        told = counted(lone, "word", "stand", of=n_words)
        log.warning("%s in one item alone, which tells nothing of another%s", told, remedy)
