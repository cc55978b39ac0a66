"""The sentences of the paper's sections 3.3 to 3.5 about results, each with the contrasts of recalls that test it.

Methods in contrasts are roles (CVAE, CDL, CTR, DeepMusic), which :data:`ROLES` casts with the fits of the paper's
settings or of validated ones, or names of figures 6 and 7. The paper's margins are taken for those of recall@300: a
margin and its relative boost give the recall of CVAE, and in three of four settings both ends of a range give the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.kinds import Claimed
from analysis.replication.methods import CONTENT, HELD, JOINT, SHORT
from analysis.replication.summary import Term

ROLES: dict[str, dict[str, str]] = {
    "paper": {"CVAE": "paper", "CDL": "cdl-paper", "CTR": "ctr-paper", "DeepMusic": "deepmusic-paper"},
    "validated": {"CVAE": "best", "CDL": "cdl", "CTR": "ctr", "DeepMusic": "deepmusic"},
}
"""The methods that stand for the paper's models, by settings."""
BASELINES = ("CDL", "CTR", "DeepMusic")
SPARSE, DENSE = 1, 10
A, T = "citeulike-a", "citeulike-t"


@dataclass(frozen=True)
class Contrast:
    """A number that a claim is about.

    Parameters:
        what: In words.
        terms: It is their sum, on each split.
        base: Where given, the sum is divided by this one.
        least: The size that is claimed, of "at least".
        data: Data sets that the claim speaks of; by default all that were fitted.
    """

    what: str
    terms: tuple[Term, ...]
    base: tuple[Term, ...] = ()
    least: float = 0.0
    data: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper.

    Parameters:
        name: Short, for tables.
        section: Where it stands.
        sentence: The paper's words, or a paraphrase where it has no quotation marks.
        claimed: What it says of every contrast.
        contrasts: What is measured.
        compares: Whether it is about roles, and so asked for the paper's and for validated settings.
        by_protocol: Whether its numbers depend on the protocol of recall.
        note: What else a reader has to know.
    """

    name: str
    section: str
    sentence: str
    claimed: Claimed
    contrasts: tuple[Contrast, ...]
    compares: bool = False
    by_protocol: bool = True
    note: str = ""


def less(one: str, other: str, per_user: int, metric: int | str, sign: float = 1.0) -> tuple[Term, ...]:
    """The terms of a metric of one method less another's."""
    return Term(sign, one, per_user, metric), Term(-sign, other, per_user, metric)


def _each(
    one: str, others: tuple[str, ...], per_user: tuple[int, ...] = (SPARSE, DENSE), cutoffs: tuple[int, ...] = (50, 300)
) -> tuple[Contrast, ...]:
    """One method less each of some others, at each P and M."""
    return tuple(
        Contrast(f"{one} less {other}, P = {p}, @{m}", less(one, other, p, m))
        for other in others
        for p in per_user
        for m in cutoffs
    )


def _margins(per_user: int, margin: float, boost: float, data: str) -> tuple[Contrast, ...]:
    """The margin and the relative boost of the CVAE over each baseline at M = 300, each at least the claimed least."""
    made = []
    for other in BASELINES:
        terms, base = less("CVAE", other, per_user, 300), (Term(1.0, other, per_user, 300),)
        made.append(Contrast(f"CVAE less {other}, P = {per_user}, @300", terms, (), margin, (data,)))
        made.append(Contrast(f"the same relative to {other}", terms, base, boost, (data,)))
    return tuple(made)


def _coupling(control: str, lambda_r: float = 1.0, cutoffs: tuple[int, ...] = (50, 300)) -> tuple[Contrast, ...]:
    joint, held = (f"{SHORT[kind]}-lambda-r-{lambda_r:g}" for kind in (JOINT, control))
    return tuple(
        Contrast(f"joint training less {control}, P = {p}, @{m}", less(joint, held, p, m))
        for p in (SPARSE, DENSE)
        for m in cutoffs
    )


def _between(one: str, other: str, cutoffs: tuple[int, ...] = (50, 300)) -> tuple[Contrast, ...]:
    return tuple(
        Contrast(f"{one} less {other}, P = {p}, @{m}", less(one, other, p, m)) for p in (SPARSE, DENSE) for m in cutoffs
    )


def _range(name: str, sentence: str, per_user: int, least: tuple[float, float], data: str) -> Claim:
    note = f"Asked of the least margin and the least relative boost that it names, {least[0]:.1%} and {least[1]:.1%}."
    contrasts = _margins(per_user, *least, data)
    return Claim(name, "3.4", sentence, "at least", contrasts, compares=True, note=note)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "tied weights reconstruct better",
        "3.3",
        '"tying weights together leads to lower reconstructure error"',
        "above",
        tuple(
            Contrast(
                f"log p(x, given z), tied less untied, relative, P = {p}",
                less("k-50", "k-50-untied", p, "content"),
                (Term(-1.0, "k-50", p, "content"),),
            )
            for p in (SPARSE, DENSE)
        ),
        by_protocol=False,
        note="Of all items at the end of the fit, as a share of -log p(x, given z) of tied weights.",
    ),
    Claim(
        "CDL beats other baselines by far",
        "3.4",
        '"CDL is a very strong baseline and outperforms the other baselines by a large margin"',
        "at least",
        tuple(
            Contrast(f"CDL less {other}, P = {p}, @300", less("CDL", other, p, 300), (), 0.01)
            for other in ("CTR", "DeepMusic")
            for p in (SPARSE, DENSE)
        ),
        compares=True,
        note="A large margin is taken for 0.01 of recall@300 or more.",
    ),
    Claim(
        "CDL beats CTR",
        "3.4",
        '"the deep learning structure of CDL learns better representations than topic modeling, leading to better '
        'performance"',
        "above",
        _each("CDL", ("CTR",)),
        compares=True,
    ),
    Claim(
        "DeepMusic suffers when sparse",
        "3.4",
        'DeepMusic "suffers badly from overfitting when the rating matrix is extremely sparse (P = 1)"',
        "below",
        _each("DeepMusic", ("CTR",), (SPARSE,)),
        compares=True,
        note="Beside CTR, with which it is to be comparable at P = 10.",
    ),
    Claim(
        "DeepMusic is as CTR when dense",
        "3.4",
        'DeepMusic "achieves a comparable performance to CTR when the rating matrix is dense (P = 10)"',
        "similar",
        _each("DeepMusic", ("CTR",), (DENSE,)),
        compares=True,
    ),
    Claim(
        "CVAE beats all baselines",
        "3.4",
        '"CVAE is able to outperform all the baselines"',
        "above",
        _each("CVAE", BASELINES),
        compares=True,
    ),
    _range(
        "margins on citeulike-a, sparse",
        '"by a margin of 4.4%~20% (a relative boost of 15.7%~160%) in the sparse setting"',
        SPARSE,
        (0.044, 0.157),
        A,
    ),
    _range(
        "margins on citeulike-a, dense",
        '"0.9%~10.8% (a relative boost of 1.4%~37.4%) in the dense setting for citeulike-a"',
        DENSE,
        (0.009, 0.014),
        A,
    ),
    _range(
        "margins on citeulike-t, sparse",
        'For citeulike-t, "4.1%~16.39% (a relative boost of 15.1%~110%) in the sparse setting"',
        SPARSE,
        (0.041, 0.151),
        T,
    ),
    _range(
        "margins on citeulike-t, dense",
        'For citeulike-t, "12.9%~26.4% (a relative boost of 24.7%~68.0%) in the dense setting"',
        DENSE,
        (0.129, 0.247),
        T,
    ),
    Claim(
        "larger gains on sparser data",
        "3.4",
        '"For citeulike-t, since the dataset is even sparser, the improvement is more significant"',
        "above",
        tuple(
            Contrast(
                f"CVAE less {other} on citeulike-t, less the same on citeulike-a, P = {p}, @300",
                tuple(
                    Term(sign * term.weight, term.method, p, 300, data)
                    for sign, data in ((1.0, T), (-1.0, A))
                    for term in less("CVAE", other, p, 300)
                ),
            )
            for other in BASELINES
            for p in (SPARSE, DENSE)
        ),
        compares=True,
        note="Splits of two data sets have nothing in common; they are paired by seed, which does no harm.",
    ),
    Claim(
        "gains over CDL grow with M",
        "3.4",
        'CVAE "achieves better and more robust recommendation [than CDL], especially for larger M"',
        "above",
        tuple(
            Contrast(
                f"CVAE less CDL @300, less the same @50, P = {p}",
                less("CVAE", "CDL", p, 300) + less("CVAE", "CDL", p, 50, -1.0),
            )
            for p in (SPARSE, DENSE)
        ),
        compares=True,
    ),
    Claim(
        "a small lambda_r does harm",
        "3.4",
        '"When lambda_r is very small, e.g., 0.01 [...] it leads to degraded performance"',
        "below",
        _between("joint-lambda-r-0.01", "joint-lambda-r-1"),
    ),
    Claim(
        "a large lambda_r does no harm",
        "3.4",
        '"lambda_r = 100 and lambda_r = 10000 have similar performance"',
        "similar",
        _between("joint-lambda-r-10000", "joint-lambda-r-100"),
    ),
    Claim(
        "tight coupling helps",
        "3.4",
        "Learning content and ratings jointly is better than learning the content first and holding it.",
        "above",
        _coupling(HELD) + _coupling(CONTENT),
        note="At lambda_r = 1. The second control has trained the content for as many epochs as the joint fit.",
    ),
    Claim(
        "joint matters more when sparse",
        "3.4",
        '"joint learning content and rating is more important when dealing with very sparse data"',
        "above",
        tuple(
            Contrast(
                f"joint training less {control} at P = 1, less the same at P = 10, @{m}",
                less(f"joint-lambda-r-{r:g}", f"{SHORT[control]}-lambda-r-{r:g}", SPARSE, m)
                + less(f"joint-lambda-r-{r:g}", f"{SHORT[control]}-lambda-r-{r:g}", DENSE, m, -1.0),
            )
            for r in (1.0,)
            for control in (HELD, CONTENT)
            for m in (50, 300)
        ),
        note="At lambda_r = 1, in absolute recall.",
    ),
    Claim(
        "a small K does harm",
        "3.4",
        '"when K is very small, e.g., 10, the CVAE is unable to learn a good representation"',
        "below",
        _between("k-10", "k-50"),
    ),
    Claim(
        "a large K has no influence",
        "3.4",
        '"when K is large enough, the influence of K is trivial"',
        "similar",
        _between("k-200", "k-100"),
    ),
    Claim(
        "large K matters more when dense",
        "3.4",
        '"the larger K has more influence in the dense setting"',
        "above",
        tuple(
            Contrast(
                f"K = 200 less K = 50 at P = 10, less the same at P = 1, @{m}",
                less("k-200", "k-50", DENSE, m) + less("k-200", "k-50", SPARSE, m, -1.0),
            )
            for m in (50, 300)
        ),
    ),
    Claim(
        "CVAE's lists are more precise",
        "3.5",
        "Of two example users the ten best items of CVAE are more often in the library than CDL's (Table 1, P = 1).",
        "above",
        (Contrast("precision@10 of CVAE less CDL, all users, P = 1", less("CVAE", "CDL", SPARSE, "precision")),),
        compares=True,
        by_protocol=False,
        note="Two users prove nothing: this is the mean over all users with test items.",
    ),
)
