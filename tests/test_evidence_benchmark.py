"""The benchmark of the evidence fits and measures at every size and shrinkage, on tiny data."""

import pytest

from benchmarks import evidence
from pyro_cvae.data.simulated import simulated


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
def test_the_bound_finds_the_precisions_of_its_own_story_and_says_so(capsys):
    dataset = simulated(n_users=60, n_items=400, n_words=40, n_factors=3)
    rows = evidence.main(["--threads", "1"], dataset=dataset, pretrain_epochs=2, factors=4, hidden=(6,), sweeps=3)
    sizes = {"ratings of the story": 3, "simulated": 4}
    assert len(rows) == sum(sizes.values()) * len(evidence.FACTORS)
    assert {row["case"] for row in rows} == set(sizes)
    own = [row for row in rows if row["case"] == "ratings of the story" and row["size"] == 1]
    best = max(own, key=lambda row: row["bound"])
    assert best["value"] < 1.2 * min(row["value"] for row in own), "at the right noise the bound knows what is near"
    assert 0 < own.index(best) < len(own) - 1, "an inner optimum"
    text = capsys.readouterr().out
    assert text.count("bound less best") == 7 and "simulated: precisions times ...; * the best" in text
