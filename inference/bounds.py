"""Numbers that no run can want, refused by every command and from Python before anything is done with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from pyro_cvae.errors import InputError, shown

LARGEST = 10**9
"""Of a whole number of which nothing else is said: what such a size would take is estimated elsewhere."""
REPEATED = 10**6
"""Of what is done again and again, where no memory is short but the run would not end."""
LARGEST_OF = {
    **dict.fromkeys(("epochs", "pretrain_epochs", "kl_warmup", "sweeps", "warmup", "thin", "trials"), REPEATED),
    **dict.fromkeys(("draws", "check_draws", "resamples", "simulations", "replications", "rounds"), REPEATED),
    **dict.fromkeys(("bins", "broken_seeds", "splits"), REPEATED),
    "leapfrog": 10_000,
    **dict.fromkeys(("threads", "jobs"), 1024),
}


def check_bounds(options: Any) -> None:
    """InputError for a whole number of a dataclass of options whose size is out of all reason; seeds are no sizes."""
    for field in fields(options):
        value = getattr(options, field.name)
        most = LARGEST_OF.get(field.name, 2**63 - 1 if "seed" in field.name else LARGEST)
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, int) and abs(one) > most:
                problem = f"--{field.name.replace('_', '-')} is {shown(one)}, but it must be at most {most:,}"
                raise InputError(problem)


def check_all(parts: Iterable[Any]) -> None:
    """The same of several dataclasses."""
    for part in parts:
        check_bounds(part)
