"""What measurements say of the paper's sentences, by one stated rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.kinds import Claimed, Judgement
from analysis.over_users import Interval
from analysis.replication.claims import CLAIMS, ROLES, Claim, Contrast
from analysis.replication.fits import PROTOCOLS
from analysis.replication.summary import Results, Term
from pyro_cvae.protocol import Protocol

NOTHING = 0.002
"""Differences within this of 0 are none."""
SIMILAR = 0.01
"""Differences within this of 0 are small: what is called similar may have them."""
RULE = f"""\
Every number is a contrast of recalls, computed split by split, with the mean over splits and its 95 % t-interval.

- A sentence that names a side (above, below): **does not** hold where an interval lies on the other side or within
  ±{NOTHING:g} of nothing on any data set and P that the sentence speaks of; **holds** where every interval lies on the
  claimed side.
- A sentence that names a size (at least): **does not** hold where an interval ends below that size on any; **holds**
  where every interval begins at it or above.
- A sentence that calls two things similar: **does not** hold where an interval lies outside of ±{SIMILAR:g} on any;
  **holds** where every interval lies within.
- Otherwise it **cannot be told**. Where no fit was made that it speaks of, it is **not measured**.
"""


@dataclass(frozen=True)
class Found:
    """A contrast on one data set, and its interval; ``None`` where a fit is missing."""

    data: str
    contrast: Contrast
    interval: Interval | None


@dataclass(frozen=True)
class Verdict:
    """A claim by one protocol, for the paper's or for validated settings, with what was found."""

    claim: Claim
    settings: str
    protocol: Protocol
    judgement: Judgement
    found: tuple[Found, ...]


def judge(claimed: Claimed, intervals: Iterable[Interval | None], least: float = 0.0) -> Judgement:
    """What intervals say of a claim, by the module's rule; ``least`` is the size of "at least".

    A missing interval keeps a claim from holding, and not from failing.
    """
    given = list(intervals)
    there = [one for one in given if one is not None]
    if not there:
        return "not measured"
    known = [one for one in there if not np.isnan([one.low, one.high]).any()]
    whole = len(known) == len(given)
    if claimed == "similar":
        fails = any(one.low > SIMILAR or one.high < -SIMILAR for one in known)
        holds = all(one.low >= -SIMILAR and one.high <= SIMILAR for one in known)
    elif claimed == "at least":
        fails, holds = any(one.high < least for one in known), all(one.low >= least for one in known)
    else:
        sign = 1 if claimed == "above" else -1
        sides = [sorted((sign * one.low, sign * one.high)) for one in known]
        fails = any(high < 0 or (low > -NOTHING and high < NOTHING) for low, high in sides)
        holds = all(low > 0 for low, _ in sides)
    return "does not" if fails else "holds" if holds and whole else "cannot be told"


def verdicts_on(results: Results, claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
    """Every claim by both protocols; one that compares models also for both kinds of settings."""
    return [
        _verdict(results, claim, settings, protocol)
        for claim in claims
        for settings in (ROLES if claim.compares else ("paper",))
        for protocol in (PROTOCOLS if claim.by_protocol else PROTOCOLS[:1])
    ]


def _verdict(results: Results, claim: Claim, settings: str, protocol: Protocol) -> Verdict:
    """Each contrast on every data set that the claim speaks of; of missing ones those that a fit was made for."""
    names = ROLES[settings]

    def cast(terms: Sequence[Term]) -> list[Term]:
        return [Term(t.weight, names.get(t.method, t.method), t.per_user, t.metric, t.data) for t in terms]

    found = []
    for contrast in claim.contrasts:
        for data in results.data:
            if contrast.data and data not in contrast.data:
                continue
            interval = results.contrast(cast(contrast.terms), data, protocol, cast(contrast.base))
            found.append(Found(data, contrast, interval))
            if any(term.data for term in contrast.terms):
                break  # it names its data sets itself
    by_size: dict[float, list[Interval | None]] = {}
    for one in found:
        by_size.setdefault(one.contrast.least, []).append(one.interval)
    judged = [judge(claim.claimed, intervals, least) for least, intervals in by_size.items()]
    return Verdict(claim, settings, protocol, _together(judged), tuple(found))


def _together(judged: Sequence[Judgement]) -> Judgement:
    """One judgement of several parts of a claim, all of which it says."""
    if not judged or set(judged) == {"not measured"}:
        return "not measured"
    return "does not" if "does not" in judged else "holds" if set(judged) == {"holds"} else "cannot be told"
