"""Tensors by name in a safetensors file: written whole or not at all, read without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pyro_cvae.errors import InputError
from pyro_cvae.runs.disk import write_file


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors of any dtype and shape; those that share memory (tied weights) are written twice."""
    ready: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        ready[name] = tensor
    write_file(path, lambda temporary: save_file(ready, temporary))


def read_tensors(path: Path, remedy: str) -> dict[str, torch.Tensor]:
    """The tensors of a file, on the CPU; InputError where it is damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError("is damaged: no safetensors file", remedy, path=path) from error
