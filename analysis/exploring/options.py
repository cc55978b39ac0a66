"""The simulated feedback loop: what is simulated, and where the numbers go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from analysis.kinds import Policy, Shows
from inference.kinds import Format
from inference.options.checking import check, check_file, check_least, check_words
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

POLICIES = get_args(Policy)
BASELINE = "greedy"


@dataclass(frozen=True)
class BanditOptions:
    """The simulation; each combination of ``content``, ``shows`` and ``slate`` is one setting.

    Parameters:
        content: Shares of z that the text tells, each between 0 and 1.
        shows: How often a user may be shown an item.
        slate: Numbers of items that each user is shown in a round.
        rounds: Rounds of showing, rating and updating.
        replications: Worlds drawn for each setting.
        users: Number of users.
        first_items: Items that are there from the beginning.
        new_items: Items that enter in each round.
        first_ratings: Ratings of each user before the first round, of random items.
        factors: Number of latent factors K.
        lambda_u: Precision of the users' prior.
        lambda_v: Precision of the items around their content.
        a: Precision of a rating.
        seed: Of everything random.
        out: A .csv file for the cumulative regret of every policy, round and replication.
        figure: A .png file for the curves.
        format: How the table is printed.
    """

    content: tuple[float, ...] = (0.2, 0.9)
    shows: tuple[Shows, ...] = ("once", "again")
    slate: tuple[int, ...] = (1, 5)
    rounds: int = 20
    replications: int = 40
    users: int = 100
    first_items: int = 50
    new_items: int = 10
    first_ratings: int = 5
    factors: int = 5
    lambda_u: float = 1.0
    lambda_v: float = 10.0
    a: float = 1.0
    seed: int = 0
    out: str | None = None
    figure: str | None = None
    format: Format = "table"

    def __post_init__(self) -> None:
        check_words(self)
        check_least(self, {"rounds": 1, "users": 1, "first_items": 1, "factors": 1})
        for name in ("lambda_u", "lambda_v", "a"):
            check(0 < getattr(self, name) < float("inf"), name, getattr(self, name), "above 0")
        if self.replications < 2:
            raise InputError(f"--replications is {self.replications}, but an interval needs at least 2")
        if not self.content or not all(0 < share < 1 for share in self.content):
            raise InputError("--content must be one or more numbers between 0 and 1", "for instance 0.2 0.9")
        if not self.shows:
            raise InputError("--shows is empty, but it must be once, again or both")
        if not self.slate or min(self.slate) < 1:
            raise InputError("--slate must be one or more whole numbers of 1 or more", "for instance 1 5")
        needed = self.first_ratings + self.rounds * max(self.slate)
        check_least(self, {"first_ratings": 0, "new_items": 0, "seed": 0})
        if self.first_items < self.first_ratings + max(self.slate) or self.n_items < needed:
            raise InputError(
                f"a user is to see {counted(needed, 'item')}, more than there are", "give more --first-items"
            )
        for flag, file, end in (("out", self.out, ".csv"), ("figure", self.figure, ".png")):
            check_file(flag, file, end)

    @property
    def n_items(self) -> int:
        """All items that are there in the last round."""
        return self.first_items + (self.rounds - 1) * self.new_items
