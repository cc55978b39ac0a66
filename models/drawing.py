"""The model's picture: ``pyro.render_model``."""

from __future__ import annotations

from typing import Any

import pyro
from pyro import poutine

from models.base import FactorModel
from models.dense_sites import DenseSites
from models.observations import Batch


def draw(model: FactorModel, batch: Batch, filename: str | None = None) -> Any:
    """The graph of the generative story as graphviz's object, also written to ``filename`` (.png, .svg, .pdf).

    Give a minibatch of a few items: their ratings are made dense, and all numbers of the model's type. Writing a file
    needs graphviz's program ``dot``.
    """
    number = next(model.tensors_of_its_type())
    contents = batch.content.to(number.device, number.dtype), batch.inputs.to(number.device, number.dtype)
    batch = Batch(batch.items.to(number.device), *contents, batch.columns.to(number.device, number.dtype))
    story = poutine.block(DenseSites()(model), hide=["theta"])
    return pyro.render_model(story, model_args=(batch,), filename=filename)
