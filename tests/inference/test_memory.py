"""Free memory stays with a process that asks for it, and with no other."""

import subprocess
import sys

import pytest

from inference import memory

SCRIPT = """
import resource
from inference.memory import keep_free_memory
{call}
import torch
def fill():
    return float(torch.zeros(10_000_000).sum())
for _ in range(30):
    fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call: str) -> int:
    told = subprocess.run([sys.executable, "-c", SCRIPT.format(call=call)], capture_output=True, text=True, check=True)
    return int(told.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is Linux's")
def test_large_blocks_are_not_mapped_anew():
    assert faults("") > 10_000 > 100 > faults("assert keep_free_memory()")


def test_another_system_or_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory.keep_free_memory() is False
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.keep_free_memory() is False
