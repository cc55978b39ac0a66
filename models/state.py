"""All that a module has learned or computed: what a run folder and a checkpoint keep of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pyro_cvae.errors import InputError

REMEDY = "fit again or copy the folder again"


PART_OF_THE_STORY = "item_prior."
"""Where a model keeps its networks; names on disk are without it, as they were when there was one model."""


def kept(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, each once: tied ones under their first name."""
    return parameters(module) | buffers(module)


def parameters(module: nn.Module) -> dict[str, Tensor]:
    """The parameters by name, detached."""
    return {_named(name): parameter.detach() for name, parameter in module.named_parameters()}


def buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers by name that are part of the ``state_dict``, detached; those registered as ``None`` are no part."""
    persistent = module.state_dict().keys()
    return {_named(name): buffer.detach() for name, buffer in module.named_buffers() if name in persistent}


def _named(name: str) -> str:
    return name.replace(PART_OF_THE_STORY, "", 1)


@torch.no_grad()
def fill(module: nn.Module, tensors: Mapping[str, Tensor], lacking: frozenset[str] = frozenset()) -> None:
    """Put what :func:`kept` gave into a module of the same making, in place.

    A buffer that is ``None`` here takes what was kept. ``lacking`` names tensors that may be missing and then stay as
    they are. Raises InputError for a tensor that is missing, unknown, or of another shape or kind of number.
    """
    own = {_named(name): value.data for name, value in [*module.named_parameters(), *module.named_buffers()]}
    wanted = kept(module)
    for name in wanted.keys() - tensors.keys() - lacking:
        raise InputError(f"holds no tensor of the model's {name}", REMEDY)
    for name, tensor in tensors.items():
        if name not in own:
            _adopt(module, name, tensor)
        elif own[name].shape != tensor.shape or own[name].is_floating_point() != tensor.is_floating_point():
            found, right = (f"{_numbers(one)} of shape {tuple(one.shape)}" for one in (tensor, own[name]))
            raise InputError(f"the model's {name} are {right}, but here are {found}", REMEDY)
        else:
            own[name].copy_(tensor)


def adopt(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Let the module's own buffers that are ``None`` be what was kept of them, if it was."""
    for name, buffer in module._buffers.items():
        if buffer is None and name in tensors:
            module._buffers[name] = tensors[name].clone()


def _adopt(module: nn.Module, name: str, tensor: Tensor) -> None:
    """A buffer that the constructor registers as ``None``, and that the fit has set."""
    path, _, leaf = name.rpartition(".")
    for place, part in module.named_modules():
        if _named(f"{place}.").removesuffix(".") == path and leaf in part._buffers:
            part._buffers[leaf] = tensor.clone()
            return
    raise InputError(f"holds a tensor {name}, which the model has not", REMEDY)


def _numbers(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
