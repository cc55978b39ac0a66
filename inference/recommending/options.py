"""What is asked of a fitted model, checked before it is opened."""

from __future__ import annotations

from dataclasses import dataclass, fields

from inference.kinds import Format, Index, Ranking
from inference.options.checking import check, check_file, check_least, check_seed, check_words
from pyro_cvae.data.reading import Reading, parse_columns
from pyro_cvae.data.sources import parse_all
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import UnknownId
from pyro_cvae.text import counted

TOP_DRAWS, PAIR_DRAWS = 200, 4000
"""Posterior draws for the probabilities of whole rankings, and of pairs of items."""


@dataclass(frozen=True)
class ListOptions:
    """How lists are made and what stands in them: the keywords of :func:`inference.recommending.recommend`.

    Parameters:
        keep_seen: Rank the items that a user is known to have chosen, too.
        keep_test: Rank those of them that were held out for the test, as evaluation does.
        unknown: What to do with an unknown user (error, drop, or prior: the average user's list).
        interval: Probability of an interval for each score, or each explicit rating, noise included.
        top_probability: M, for the probability that an item is among the user's M best candidates.
        ranking: What lists are ordered by (mean, thompson: one posterior draw a user, ucb: mean + kappa sd).
        kappa: Standard deviations that ucb adds.
        draws: Posterior draws for ``top_probability``.
        seed: Of the draws.
        index: How the best items are found (exact: all are looked at, faiss: those in some clusters of an approximate
            index, for very many items; the share of the exact lists that it finds is measured on some users and told).
        probes: Clusters, of 4 sqrt(number of items), that faiss searches for each user: more find more and take longer.
        block_size: Users scored at once.
    """

    keep_seen: bool = False
    keep_test: bool = False
    unknown: UnknownId = "error"
    interval: float | None = None
    top_probability: int | None = None
    ranking: Ranking = "mean"
    kappa: float = 1.0
    draws: int = TOP_DRAWS
    seed: int = 0
    index: Index = "exact"
    probes: int = 32
    block_size: int = 1024

    def __post_init__(self) -> None:
        check_words(self)
        if self.interval is not None and not 0 < self.interval < 1:
            raise InputError(f"--interval is {self.interval}, but it must be between 0 and 1", "for instance 0.9")
        check_least(self, {"top_probability": 1, "probes": 1})
        by_mean = self.index == "exact" or self.ranking == "mean"
        check(by_mean, "ranking", self.ranking, "mean with --index faiss, which finds the largest means")
        check(0 <= self.kappa < float("inf"), "kappa", self.kappa, "a finite number, 0 or more")

    @property
    def needs_uncertainty(self) -> bool:
        """True if a point estimate cannot answer."""
        return self.interval is not None or self.top_probability is not None or self.ranking != "mean"


@dataclass(frozen=True)
class RecommendOptions:
    """What is asked of a fitted model.

    Parameters:
        run: The run folder of a fit.
        user: Users to recommend to, by their ids.
        users_from: A file of user ids, one a line.
        everybody: Recommend to all users of the fit, in their order; with --out the lists go to the file as they are
            made, so that any number of users fits into memory.
        history: A table (user, item[, weight]) of users to be folded in and recommended to; their whole history, since
            what is not in it counts as not chosen; with a column rating where the run is of explicit ratings.
        likes: All items that one new user has chosen, by their ids; recommend to this user.
        similar: Items to find similar items of, instead of users.
        similar_users: Users to find similar users of, by the cosine of their vectors, instead of lists.
        above: Items two by two; for each user the probability that the first scores above the second.
        new_items: A table (item, text[, title]) of items to be added before anything is ranked.
        new_contents: Further contents of these items, as in --contents of the fit: NAME=PATH, or NAME for a column of
            that table; what the fit is of and they lack is left to its prior.
        columns: What columns of these tables are called, each NAME=COLUMN; by default as in the fit's own tables.
        separator: Of these text tables; by default told by the header.
        encoding: Of these text tables; by default UTF-8, or what a byte order mark says.
        top: Length of each list.
        interval: Probability of an interval for each score, or each explicit rating, noise included, for instance 0.9.
        top_probability: M, for the probability that an item is among the user's M best candidates.
        ranking: What lists are ordered by (mean, thompson: one posterior draw a user, ucb: mean + kappa sd).
        kappa: Standard deviations that ucb adds.
        draws: Posterior draws for the probabilities; 0 takes 200 of whole rankings, 4,000 of pairs.
        seed: Of the draws.
        index: How the best items are found (exact: all are looked at, faiss: those in some clusters of an approximate
            index, for very many items; the share of the exact lists that it finds is measured on some users and told).
        probes: Clusters, of 4 sqrt(number of items), that faiss searches for each user: more find more and take longer.
        candidates: A file of item ids, one a line; only these are ranked.
        exclude: A file of item ids, one a line, that are never recommended.
        exclude_pairs: A table (user, item) of what is not recommended to one user: read before, blocked, out of stock
            there.
        keep_seen: Rank the items that a user is known to have chosen, too.
        keep_test: Rank those of them that were held out for the test, as evaluation does.
        unknown: What to do with an unknown id (error, drop, or prior for users, who get the average user's list).
        why: For each listed item as many reasons: the items of the user's own that add most to its score, with the
            share of the score that each adds, what of it is due to the contents, and words that both have; 0 for none;
            see docs/why.md.
        out: A CSV or Parquet file instead of a table.
        format: How the answer is printed.
        trust: Class paths outside of the package that the run may import; see docs/security.md.
        csv_safe: Put an apostrophe before texts in CSV that a spreadsheet program would take for formulas.
    """

    run: str
    user: tuple[str, ...] = ()
    users_from: str | None = None
    everybody: bool = False
    history: str | None = None
    likes: tuple[str, ...] = ()
    similar: tuple[str, ...] = ()
    similar_users: tuple[str, ...] = ()
    above: tuple[str, ...] = ()
    new_items: str | None = None
    new_contents: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    separator: str = ""
    encoding: str = ""
    top: int = 10
    interval: float | None = None
    top_probability: int | None = None
    ranking: Ranking = "mean"
    kappa: float = 1.0
    draws: int = 0
    seed: int = 0
    index: Index = "exact"
    probes: int = 32
    candidates: str | None = None
    exclude: str | None = None
    exclude_pairs: str | None = None
    keep_seen: bool = False
    keep_test: bool = False
    unknown: UnknownId = "error"
    why: int = 0
    out: str | None = None
    format: Format = "table"
    trust: tuple[str, ...] = ()
    csv_safe: bool = False

    def __post_init__(self) -> None:
        check_words(self)
        check_least(self, {"top": 1, "draws": 0, "why": 0})
        check_file("out", self.out, ".csv", ".parquet")
        people = self.user or self.users_from or self.history or self.likes or self.everybody
        if self.similar and (people or self.above):
            raise InputError("--similar is about items, --user about users", "ask for one of them")
        if self.similar_users and (
            self.similar or self.user or self.users_from or self.everybody or self.likes or self.above
        ):
            raise InputError(
                "--similar-users is an answer of its own", "leave out --similar, --user, --likes and --above"
            )
        if self.similar_users and (self.candidates or self.exclude):
            raise InputError("--similar-users finds users, and --candidates and --exclude are items", "leave them out")
        no_lists = self.similar or self.similar_users or self.above
        if self.why and no_lists:
            raise InputError("--why gives the reasons of lists", "leave out --similar, --similar-users and --above")
        if self.exclude_pairs and no_lists:
            problem = "--exclude-pairs is about lists of users"
            raise InputError(problem, "leave out --similar, --similar-users and --above")
        if self.everybody and (self.user or self.users_from):
            raise InputError("--everybody names all users", "leave out --user and --users-from")
        if self.likes and (self.user or self.users_from or self.history or self.everybody):
            raise InputError("--likes is about one new user alone", "ask for the others in a call of their own")
        if self.new_contents and not self.new_items:
            raise InputError("--new-contents are of new items", "name these with --new-items FILE")
        parse_all(self.new_contents)
        Reading(parse_columns(self.columns), self.separator, self.encoding)  # checks them
        if len(self.above) % 2:
            raise InputError(
                f"--above has {counted(len(self.above), 'item')}, which make no pairs", "give them two by two"
            )
        check_seed(self.seed)
        _ = self.lists  # checks them

    @property
    def of_lists(self) -> bool:
        """Whether lists for users are asked for, not similar items or users or chances of pairs."""
        return not (self.similar or self.similar_users or self.above)

    @property
    def lists(self) -> ListOptions:
        """What is asked of lists; with ``draws`` 0 as many draws as a whole ranking takes by itself."""
        asked = {field.name: getattr(self, field.name) for field in fields(ListOptions) if field.name != "block_size"}
        return ListOptions(**asked | {"draws": self.draws or TOP_DRAWS})
