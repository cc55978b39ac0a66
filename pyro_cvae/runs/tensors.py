"""Tensors by name in safetensors files: written whole or not at all, read without running anything.

What takes more than :data:`LARGEST` bytes goes into several files, ``<name>-00001-of-00003.safetensors`` and so on,
with an index above them, ``<name>.safetensors.index.json``, whose ``weight_map`` says which file has which tensor. Rows
of a tensor that is itself larger are pieces of it, called ``<tensor>#0``, ``<tensor>#1``, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pyro_cvae.errors import InputError
from pyro_cvae.listed import Listed, read_json
from pyro_cvae.runs.disk import write_file
from pyro_cvae.runs.manifest import write_json

LARGEST = 2**31
"""Bytes of a file up to which tensors stay together."""
INDEX = ".index.json"


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], largest: int | None = None) -> list[Path]:
    """Write tensors of any dtype and shape, and return the files; those that share memory are written twice.

    More than ``largest`` bytes go into several files, the index last.
    """
    largest = LARGEST if largest is None else largest
    pieces = _pieces(tensors, largest)
    if len(pieces) == 1:
        _write(path, pieces[0])
        return [path]
    names = [f"{path.stem}-{n:05d}-of-{len(pieces):05d}{path.suffix}" for n in range(1, len(pieces) + 1)]
    for name, piece in zip(names, pieces, strict=True):
        _write(path.with_name(name), piece)
    where = {tensor: name for name, piece in zip(names, pieces, strict=True) for tensor in piece}
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_json(path.with_name(path.name + INDEX), {"metadata": {"total_size": total}, "weight_map": where})
    return [*(path.with_name(name) for name in names), path.with_name(path.name + INDEX)]


def _pieces(tensors: Mapping[str, torch.Tensor], largest: int) -> list[dict[str, torch.Tensor]]:
    """What goes into each file."""
    files, room = [dict[str, torch.Tensor]()], largest
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        parts = {name: tensor}
        if size > largest and tensor.dim() and len(tensor) > 1:
            rows = max(1, len(tensor) * largest // size)
            parts = {f"{name}#{n}": part for n, part in enumerate(tensor.split(rows))}
        for part_name, part in parts.items():
            size = part.numel() * part.element_size()
            if size > room and files[-1]:
                files.append({})
                room = largest
            files[-1][part_name] = part
            room -= size
    return files


def _write(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
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


def has_tensors(listed: Listed, name: str) -> bool:
    """Whether a folder has them, whole or in parts; ``name`` is that of the file if they are whole."""
    return listed.names is not None and (name in listed.names or name + INDEX in listed.names)


def read_tensors(listed: Listed, name: str, remedy: str) -> dict[str, torch.Tensor]:
    """The tensors of a file, or of the parts that its index lists, on the CPU; InputError where one is damaged."""
    if listed.names is None or name + INDEX not in listed.names:
        return _read(listed.file(name, remedy), remedy)
    path = listed.file(name + INDEX, remedy)
    index = read_json(path, remedy)
    where: Any = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
        raise InputError("is damaged: no index of tensors", remedy, path=path)
    found: dict[str, list[torch.Tensor]] = {}
    for file in dict.fromkeys(where.values()):
        part = _read(listed.file(file, remedy), remedy)
        for piece in (piece for piece, place in where.items() if place == file):
            if piece not in part:
                raise InputError(f"is damaged: {file} has no {piece}", remedy, path=path)
            found.setdefault(piece.partition("#")[0], []).append(part[piece])
    try:
        return {tensor: rows[0] if len(rows) == 1 else torch.cat(rows) for tensor, rows in found.items()}
    except (RuntimeError, TypeError) as error:
        raise InputError("is damaged: pieces of a tensor that do not fit", remedy, path=path) from error


def _read(path: Path, remedy: str) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError("is damaged: no safetensors file", remedy, path=path) from error
