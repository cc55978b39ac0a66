"""The Python of docs/adapters.md that needs no peer, executed with little networks; the peers' tests have the rest."""

import numpy as np

from pyro_cvae.data.matrices import to_csr
from tests.test_likelihoods_page import ROOT, blocks

PAGE = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")


def test_matrices_and_frames_give_the_same_fit() -> None:
    matrices, frames, *of_peers = blocks("python", PAGE)
    assert matrices.count("factors=10)") == frames.count("factors=10)") == 1
    little = "factors=10, hidden=(6,), pretrain_epochs=1, epochs=1, threads=1)"
    matrices, frames = (one.replace("factors=10)", little) for one in (matrices, frames))
    space: dict = {}
    exec(matrices, space)
    fit, known, train = (space[name] for name in ("fit", "known", "train"))
    assert fit.dataset.n_items == known.n_items and train.shape == (known.n_users, known.n_items)
    assert (to_csr(fit.dataset.interactions) != space["matrix"]).nnz == 0
    exec(frames, space)
    pairs, again = space["pairs"], space["again"]
    assert pairs.height == train.nnz == len(again.split.train) and np.isfinite(again.posterior.u_loc.numpy()).all()
    assert [("lenskit" in one, "rectools" in one) for one in of_peers] == [(True, False), (False, True)]
