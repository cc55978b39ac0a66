"""Options of the data and of how they are split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inference.options.checking import check, check_words
from pyro_cvae.data.reading import Reading, parse_columns
from pyro_cvae.data.sources import parse_all
from pyro_cvae.kinds import Html, Ratings, Scaling, Splitting


@dataclass(frozen=True)
class DataOptions:
    """What is fitted: the data, and how it is split into training and test.

    Parameters:
        data: A name (simulated, simulated-gaussian, simulated-stars, citeulike-a, citeulike-t) or a path to a folder or
            a file.
        items: A table of items and their texts, where ``data`` is a table of interactions; a model that reads no
            content needs none.
        contents: Further contents of the items, each NAME[=[KIND:]PATH], with KIND words, tokens, images, vectors,
            links, or embed (PATH is then a model of sentences on the disk). Without a path it is one that the data
            have: a column of the items' table, titles, title-tokens, tags, citations.
        ratings: What the column ``rating`` of a table says (clicks: a pair above 0 is a 1; stars: the rating; auto:
            stars for the rating likelihood normal, else clicks).
        min_rating: Least rating of a pair that is a choice, of clicks; by default any above 0.
        columns: What the columns of tables are called, each NAME=COLUMN, with NAME user, item, rating, weight, time,
            text, title or to.
        separator: Of text tables (a character, or comma, semicolon, tab, pipe, space); by default told by the header.
        encoding: Of text tables, for instance latin-1; by default UTF-8, or what a byte order mark says.
        tokenizer: What turns texts of tables into words (words, unicode-words, bigrams, or the path of a function);
            bigrams are of scripts without blanks between words.
        html: Take tags and entities out of texts, or leave them.
        split: How training and test are told apart; with none all pairs train, and nothing is evaluated. Ignored with
            ``train_file`` and ``test_file``.
        train_per_user: Training items per user (the paper's P) of a per-user split.
        train_file: A file of training pairs: a table with columns user and item, or rows in CiteULike's format. Without
            ``test_file`` all other pairs are test. Without ``data`` (and with ``items``) the files are the data.
        validation_file: A file of validation pairs, in the same forms.
        test_file: A file of test pairs, in the same forms; without ``train_file`` all other pairs train.
        test_fraction: Share of test pairs of a split by time (time: the latest; last: each user's latest) or by cells,
            or of held-out items of a split by items.
        split_seed: Seed of the split.
        validation: Share of the training ratings (for P = 1: of the users) that early stopping and tuning look at.
        scaling: How word counts become content; auto is the likelihood's own.
    """

    data: str = "simulated"
    items: str | None = None
    contents: tuple[str, ...] = ()
    ratings: Literal["auto", Ratings] = "auto"
    min_rating: float | None = None
    columns: tuple[str, ...] = ()
    separator: str = ""
    encoding: str = ""
    tokenizer: str = "words"
    html: Html = "strip"
    split: Splitting = "per-user"
    train_per_user: int = 10
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    test_fraction: float = 0.2
    split_seed: int = 0
    validation: float = 0.0
    scaling: Literal["auto", Scaling] = "auto"

    def __post_init__(self) -> None:
        check_words(self)
        parse_all(self.contents)
        check(self.ratings != "stars" or self.min_rating is None, "min_rating", self.min_rating, "left out with stars")
        self.reading  # noqa: B018
        check(self.train_per_user >= 1, "train_per_user", self.train_per_user, "at least 1")
        check(0 <= self.split_seed < 2**32, "split_seed", self.split_seed, "0 or more and below 2^32")
        check(0 < self.test_fraction < 1, "test_fraction", self.test_fraction, "between 0 and 1")
        check(0 <= self.validation < 1, "validation", self.validation, "at least 0 and below 1")
        parts = self.train_file or self.test_file
        alone = "beside --train-file or --test-file"
        check(self.validation_file is None or parts is not None, "validation_file", self.validation_file, alone)
        both = self.validation_file is not None and self.validation > 0
        check(not both, "validation", self.validation, "left out with --validation-file")

    @property
    def reading(self) -> Reading:
        """How tables are read; InputError where a part of it is wrong."""
        return Reading(
            parse_columns(self.columns),
            self.separator,
            self.encoding,
            self.tokenizer,
            self.html,
            self.min_rating,
            need_time=self.split in ("time", "last") and self.train_file is None and self.test_file is None,
        )
