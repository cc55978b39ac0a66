"""Workers that are started again with the same store meet each other, and none of those before them."""

import threading
import time

import pytest
import torch.distributed as dist

from inference.algorithms import meeting


def met(store, late):
    """The names that workers come to, of which each begins so many seconds later."""
    found = [None] * len(late)

    def begin(rank):
        time.sleep(late[rank])
        found[rank] = meeting._named(store, len(late)) if rank == 0 else meeting._told(store, rank)

    threads = [threading.Thread(target=begin, args=(rank,), daemon=True) for rank in range(len(late))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return found


@pytest.mark.parametrize("late", [[0.0, 0.0, 0.1], [0.1, 0.0, 0.0], [0.0, 0.1, 0.05]])
def test_workers_that_are_started_again_agree_on_a_name_of_their_own(late):
    """Whoever comes first reads what former workers have left: numbers, a name, answers and that the name counts."""
    store, names = dist.HashStore(), list[str]()
    for _ in range(3):
        found = met(store, late)
        assert len(found[0]) == 32 and len(set(found)) == 1
        names.append(found[0])
    assert len(set(names)) == 3


def test_workers_that_ended_before_they_had_met_leave_nothing_that_counts():
    """One of them had its number read, another had answered, when they ended."""
    store = dist.HashStore()
    for rank in (1, 2):
        store.set(f"pyro-cvae/number/{rank}", "gone")
    store.set("pyro-cvae/name", '["old", ["gone", "gone"]]')
    store.set("pyro-cvae/answer/1", "old")
    found = met(store, [0.0, 0.05, 0.1])
    assert len(set(found)) == 1 and found[0] != "old"
