"""The benchmarks run, and measure two programs that compute the same thing."""

import pytest

from benchmarks import epoch


@pytest.mark.slow
def test_package_and_dense_peer_agree_and_are_measured(capsys):
    sizes = {"users": 30, "items": 80, "words": 60, "pairs": 200, "words-per-item": 8, "epochs": 1}
    rows = epoch.main([f"--{name}={size}" for name, size in sizes.items()])
    assert [(row["mode"], row["variant"]) for row in rows] == [
        ("map", "package"), ("map", "dense"), ("bayes", "package"), ("bayes", "dense")
    ]  # fmt: skip
    for row in rows:
        assert row["seconds"] > 0 and row["peak_mib"] > 50 and row["error"] < epoch.TOLERANCE
    printed = capsys.readouterr().out
    assert "30 users, 80 items, 60 words, 200 pairs, 8.0 distinct words an item" in printed
