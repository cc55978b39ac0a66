"""Tensors of a run in one file, and in several with an index above them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pyro_cvae.errors import InputError
from pyro_cvae.listed import Listed
from pyro_cvae.runs.tensors import has_tensors, read_tensors, write_tensors

TENSORS = {
    "wide": torch.randn(3, 40, generator=torch.Generator().manual_seed(0)),
    "large": torch.arange(1000.0, dtype=torch.float64).view(100, 10),
    "number": torch.tensor(7),
    "nothing": torch.zeros(0, 5),
    "small": torch.tensor([True, False]),
}
NAME = "posterior.safetensors"


def listed(folder: Path, *without: str) -> Listed:
    return Listed(folder, {file.name for file in folder.iterdir()} - set(without))


def same(found: dict[str, torch.Tensor]) -> bool:
    assert found.keys() == TENSORS.keys()
    return all(torch.equal(found[name], one) and found[name].dtype == one.dtype for name, one in TENSORS.items())


@pytest.mark.parametrize("largest", [10**6, 3000, 500, 81])
def test_tensors_come_back_however_many_files_hold_them(tmp_path: Path, largest: int) -> None:
    files = write_tensors(tmp_path / NAME, TENSORS, largest)
    assert {file.name for file in files} == {file.name for file in tmp_path.iterdir()}
    assert (len(files) == 1) == (largest == 10**6) and has_tensors(listed(tmp_path), NAME)
    assert same(read_tensors(listed(tmp_path), NAME, "fit again"))
    for file in files[:-1]:  # a head of names and shapes besides
        assert file.stat().st_size <= largest + 600


def test_more_than_eleven_pieces_come_back_in_order(tmp_path: Path) -> None:
    rows = {"rows": torch.arange(300.0).view(300, 1)}
    assert len(write_tensors(tmp_path / NAME, rows, 40)) > 20
    assert torch.equal(read_tensors(listed(tmp_path), NAME, "")["rows"], rows["rows"])


def test_what_an_index_names_is_read_only_where_the_manifest_lists_it(tmp_path: Path) -> None:
    write_tensors(tmp_path / NAME, TENSORS, 3000)
    part = "posterior-00002-of-00004.safetensors"
    assert (tmp_path / part).exists()
    with pytest.raises(InputError, match="is not in the manifest"):
        read_tensors(listed(tmp_path, part), NAME, "")


@pytest.mark.parametrize("damage", ["[]", "{}", '{"weight_map": {"wide": 3}}', '{"weight_map": {"other": "%s"}}'])
def test_a_damaged_index_is_one_line(tmp_path: Path, damage: str) -> None:
    write_tensors(tmp_path / NAME, TENSORS, 3000)
    index = tmp_path / f"{NAME}.index.json"
    first = next(iter(json.loads(index.read_text())["weight_map"].values()))
    index.write_text(damage % first if "%s" in damage else damage)
    with pytest.raises(InputError, match="damaged"):
        read_tensors(listed(tmp_path), NAME, "fit again")


def test_pieces_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    write_tensors(tmp_path / NAME, {"one": torch.zeros(4, 2), "two": torch.zeros(4, 3)}, 32)
    index = tmp_path / f"{NAME}.index.json"
    said = json.loads(index.read_text())
    (tmp_path / said["weight_map"]["one"]).unlink()
    write_tensors(tmp_path / said["weight_map"]["one"], {"two#9": torch.zeros(4, 7)})
    said["weight_map"] = {"two#9": said["weight_map"]["one"]} | {
        name: file for name, file in said["weight_map"].items() if name != "one"
    }
    index.write_text(json.dumps(said))
    with pytest.raises(InputError, match="do not fit"):
        read_tensors(listed(tmp_path), NAME, "fit again")
