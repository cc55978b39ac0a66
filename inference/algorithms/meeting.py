"""Where the workers of a job meet: a part of torchrun's store that is theirs alone, and of no workers before them.

torchrun starts workers again with the same store, in which the addresses of those that have ended still stand. Who
reads one before its new owner has written it calls somebody who is no longer there ("connection refused"), or waits. So
the first worker asks the others for a number that nobody else can know, and gives a name to those who answer:

- every other worker writes a random number of its own;
- the first writes a new name beside the numbers that it has read, once all are there, and whenever one has changed;
- who finds its own number beside the name answers with it;
- once all have answered with the newest name, the first lets it count.

A number, a name and an answer of former workers match none of these. How often torchrun has started a machine's workers
says nothing: it counts for each machine by itself.
"""

from __future__ import annotations

import json
import secrets
import time
from datetime import timedelta

import torch.distributed as dist

LOOK = 0.01
"""Seconds between two looks at the store."""


def meet(patience: timedelta) -> tuple[dist.Store, str, int, int]:
    """The store of these workers, the name of their part of it, this one's rank, and how many they are.

    Raises ValueError and RuntimeError where torchrun's store is not to be found within ``patience``.
    """
    store, rank, size = next(dist.rendezvous("env://", timeout=patience))
    name = _named(store, size) if rank == 0 else _told(store, rank)
    return dist.PrefixStore(name, store), name, rank, size


def _named(store: dist.Store, size: int) -> str:
    """The name that all others have answered with."""
    others, offered, name = range(1, size), list[str](), ""
    while True:
        numbers = [_read(store, f"number/{other}") for other in others]
        if all(numbers) and numbers != offered:
            offered, name = numbers, _new()
            store.set("pyro-cvae/name", json.dumps([name, numbers]))
        if name and all(_read(store, f"answer/{other}") == name for other in others):
            store.set("pyro-cvae/counts", name)
            return name
        time.sleep(LOOK)


def _told(store: dist.Store, rank: int) -> str:
    """The name that counts, of those that are for this worker."""
    number, name = _new(), ""
    store.set(f"pyro-cvae/number/{rank}", number)
    while not name or _read(store, "counts") != name:
        offer = _read(store, "name")
        found, numbers = json.loads(offer) if offer else ("", [])
        if found != name and number in numbers:
            name = found
            store.set(f"pyro-cvae/answer/{rank}", name)
        time.sleep(LOOK)
    return name


def _new() -> str:
    """A text that nobody has said before."""
    return secrets.token_hex(16)


def _read(store: dist.Store, key: str) -> str:
    """What stands in the store, "" where nothing does."""
    key = f"pyro-cvae/{key}"
    return store.get(key).decode() if store.check([key]) else ""
