"""The model's picture: ``pyro.render_model`` of a CVAE."""

from __future__ import annotations

from typing import Any

import pyro
from pyro import poutine
from pyro.poutine.messenger import Messenger

from models.cvae import CVAE
from models.observations import Batch, DenseRows, RatingColumns, SparseRows


class DenseSites(Messenger):
    """The same story with dense values at its two observed sites, for Pyro's tracers, which follow tensors only."""

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["value"], SparseRows | DenseRows):
            msg["fn"], msg["value"] = msg["fn"].dense(), msg["value"].dense()
        elif isinstance(msg["value"], RatingColumns):
            msg["fn"], msg["value"] = msg["fn"].dense(), msg["value"].dense(0.0)[0]


def draw(model: CVAE, batch: Batch, filename: str | None = None) -> Any:
    """The graph of the generative story as graphviz's object, also written to ``filename`` (.png, .svg, .pdf).

    Give a minibatch of a few items: their ratings are made dense. Writing a file needs graphviz's program ``dot``.
    """
    story = poutine.block(DenseSites()(model), hide=["theta"])
    return pyro.render_model(story, model_args=(batch,), filename=filename)
