"""Recovery of simulated truth: where there is nothing to say."""

import inference
from pyro_cvae.data.simulated import simulated_gaussian


def test_ratings_of_all_cells_leave_nothing_to_recover():
    fit = inference.fit(
        simulated_gaussian(n_users=20, n_items=25, n_words=30, n_factors=2),
        factors=2, hidden=(4,), split="none", method="coordinate", pretrain_epochs=1, epochs=0, sweeps=1,
    )  # fmt: skip
    assert fit.metrics["recovery"] == {}
