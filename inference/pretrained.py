"""Pre-trained networks that are kept for further fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch

from inference.algorithms.base import Snapshot
from inference.options import Options
from pyro_cvae.data.dataset import Dataset

PRETRAINING = (
    *("model", "model_args", "scaling", "factors", "content_likelihood", "content_likelihood_args"),
    *("content", "balance", "network", "network_args", "hidden"),
    *("activation", "radius", "tied", "encoder_input", "lambda_r", "lambda_w", "pretrain_epochs", "batch_size"),
    *("pretrain_learning_rate", "kl_weight", "kl_warmup", "word_dropout", "part_dropout", "start", "seed"),
    *("device", "dtype", "rating_likelihood", "rating_likelihood_args", "biases"),
)
"""Options on which the networks after pre-training depend."""
Keep = Callable[[dict[str, torch.Tensor], dict[str, Any]], None]


class Pretrained:
    """The latest networks after pre-training, for further fits that differ in what comes after it alone.

    A fit that goes on from them comes to the same numbers as one that pre-trains for itself.
    """

    def __init__(self) -> None:
        self._key, self._meta = "", ""
        self._tensors: dict[str, torch.Tensor] = {}

    def of(self, options: Options, dataset: Dataset) -> tuple[Snapshot | None, tuple[int, Keep] | None]:
        """The snapshot to go on from, if there is one; otherwise after which step to keep one, and how."""
        known = options.to_dict()
        names = {name: known[name] for name in PRETRAINING} | {"method": options.method_name}
        names["early"] = options.fit.tune > 0  # networks of earlier epochs are kept beside them
        key = json.dumps([dataset.fingerprint(), names], sort_keys=True)
        if key == self._key:
            return (_copied(self._tensors), json.loads(self._meta)), None

        def keep(tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
            self._key, self._tensors, self._meta = key, _copied(tensors), json.dumps(meta)

        return None, (options.fit.pretrain_epochs, keep)


def _copied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}
