"""What is made by ArviZ, whose functions stand in other packages from version to version."""

from __future__ import annotations

import importlib
from typing import Any

import arviz_base

from analysis.draws.groups import DIMS
from pyro_cvae.errors import MachineError


def arviz_function(name: str) -> Any:
    """ArviZ's own function of a name, from whichever of its packages has it. Raises MachineError where none does."""
    for package in ("arviz_stats", "arviz_plots", "arviz"):
        function = getattr(importlib.import_module(package), name, None)
        if function is not None:
            return function
    raise MachineError(f"the installed ArviZ has no {name}", "install arviz-stats and arviz-plots, 0.8 or newer")


def tree_of_groups(groups: dict[str, dict[str, Any]], coords: dict[str, Any]) -> Any:
    """Arrays by group and variable as an ``xarray.DataTree``, with :data:`DIMS` and the coordinates given."""
    of_predictions = DIMS | {"R": ["held_out"], "confidence": ["held_out"]}
    return arviz_base.from_dict(groups, coords=coords, dims=DIMS, pred_coords=coords, pred_dims=of_predictions)


def inference_data_class() -> Any:
    """``arviz.InferenceData``, which ArviZ below 1 has. Raises MachineError where there is none."""
    arviz: Any = importlib.import_module("arviz")
    if "InferenceData" not in vars(arviz):  # asked for by name, ArviZ 1 warns and gives xarray's DataTree
        raise MachineError("this ArviZ has no InferenceData", "use to_datatree, which ArviZ 1 and newer take")
    return arviz.InferenceData
