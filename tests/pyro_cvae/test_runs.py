"""Run folders: what is written comes back, what is damaged is refused, and no moment is a bad one to be killed."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import pickle
import random
import resource
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyro_cvae.data import files
from pyro_cvae.data.content import Content
from pyro_cvae.data.contents import Images, Tokens
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError, MachineError
from pyro_cvae.listed import dump_json
from pyro_cvae.runs import FREE_OPTIONS, RunWriter, disk, export_without_users, open_run, reader, run_config
from pyro_cvae.runs import config as config_module
from tests.strangers import seal

CONFIG = run_config("svi", {"epochs": 3, "mode": "bayes", "lambda_u": 0.1}, objective="elbo")


class Part:
    """Stands in for a data set where its content does not matter."""

    def __init__(self, text: str = "rows", fingerprint: str = "f") -> None:
        self.text, self._fingerprint = text, fingerprint

    def save(self, folder: Path) -> None:
        (folder / "part.json").write_text(self.text)

    def fingerprint(self) -> str:
        return self._fingerprint


def state(epoch: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors = {"weight": torch.full((3, 2), float(epoch)), "random": torch.arange(8, dtype=torch.uint8)}
    return tensors, {"epoch": epoch, "best": epoch / 3}


def write_run(out: Path, value: float = 1.0, *, overwrite: bool = False) -> Path:
    writer = RunWriter.start(out, CONFIG, Part(), Part(), overwrite=overwrite)
    writer.checkpoint(*state(1))
    save_results(writer, value)
    return writer.finish()


def save_results(writer: RunWriter, value: float) -> None:
    writer.save_tensors("posterior", {"u_loc": torch.full((4, 2), value), "v_loc": torch.full((5, 2), value)})
    writer.save_history([{"epoch": 1, "elbo": -value / 3}])
    writer.save_json("metrics", {"recall@50": value})


def value_of(out: Path) -> float:
    run = open_run(out)
    value = float(run.tensors()["u_loc"][0, 0])
    assert run.metrics() == {"recall@50": value}
    return value


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def copied(finished: Path, out: Path) -> Path:
    return Path(shutil.copytree(finished, out))


# --- children that are killed ----------------------------------------------------------------------------------------


def in_child(act: Callable[[], str], kill_at: int | None = None) -> tuple[int, str]:
    """Exit status and answer of ``act`` in a forked process, killed at its ``kill_at``-th touch of the file system."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 on: fork of a process with threads
        child = os.fork()
    if child == 0:
        status = 99
        try:
            torch.set_num_threads(1)  # the parent's other threads are not here, and would be waited for
            disk._locks.clear()  # another process holds nothing
            if kill_at is not None:
                _kill_at(kill_at)
            os.write(writer, act().encode())
            status = 0
        except (InputError, MachineError) as error:
            os.write(writer, str(error).encode())
            status = error.exit_code
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as stream:
        answer = stream.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), answer


def _kill_at(step: int) -> None:
    steps = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal steps
        touches = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
        if touches or (event == "open" and "/run" in str(arguments[0])):
            steps += 1
            if steps == step:
                os.kill(os.getpid(), 9)

    sys.addaudithook(hook)


def killed_at_every_step(template: Path, work: Path, act: Callable[[], object]) -> Iterator[int]:
    """Yield after each kill of ``act``, which begins anew in a copy of ``template`` and gets one step further."""
    for step in range(1, 500):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(template, work, symlinks=True)
        status, answer = in_child(lambda: str(act()), step)
        if status == 0:
            assert step > 10, "the hook saw nothing"
            return
        assert status == -9, answer
        yield step
    raise AssertionError("never came to an end")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A folder to prepare things in, and the folder that its copies will be."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # slow, and no help against a kill, only a power cut
    (tmp_path / "template").mkdir()
    return tmp_path / "template", tmp_path / "work"


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [(3,), (2,)], ids=["next epoch", "same epoch"])
def test_kill_in_a_checkpoint_leaves_the_one_before_or_the_new_one(
    stage: tuple[Path, Path], epochs: tuple[int]
) -> None:
    template, work = stage
    writer = RunWriter.start(template / "run", CONFIG, Part())
    for epoch in (1, 2):
        writer.checkpoint(*state(epoch))
    writer.close()

    def act() -> None:
        tensors, meta = state(epochs[0])
        RunWriter.resume(work / "run", CONFIG).checkpoint(tensors, meta | {"new": True})

    seen = set()
    for _ in killed_at_every_step(template, work, act):
        resumed = RunWriter.resume(work / "run", CONFIG)
        found = resumed.latest_checkpoint()
        assert found is not None
        tensors, meta = found
        assert resumed.notes == []
        assert meta["epoch"] in (2, epochs[0])
        assert torch.equal(tensors["weight"], torch.full((3, 2), float(meta["epoch"])))
        seen.add(meta.get("new", False))
        resumed.checkpoint(*state(4))
        names = sorted(entry.name for entry in (work / "run.partial" / "checkpoint").iterdir())
        assert len(names) == 2 and names[-1] == "epoch-000004" and ".new" not in names
        resumed.close()
    assert seen == {False, True}


@pytest.mark.slow
def test_kill_in_finish_leaves_the_old_run_or_the_new_one(stage: tuple[Path, Path]) -> None:
    template, work = stage
    write_run(template / "run", 1.0)
    writer = RunWriter.start(template / "run", CONFIG, Part(), overwrite=True)
    writer.checkpoint(*state(3))
    save_results(writer, 2.0)
    writer.close()
    seen = set()
    for _ in killed_at_every_step(template, work, lambda: RunWriter.resume(work / "run", CONFIG).finish()):
        value = value_of(work / "run")
        seen.add(value)
        for old in work.glob("run.old-*"):
            assert value_of(old) == 1.0 if (old / "manifest.json").exists() else value == 2.0
        if (work / "run.partial").exists():
            assert value == 1.0
            resumed = RunWriter.resume(work / "run", CONFIG)
            assert (work / "run").is_dir()
            found = resumed.latest_checkpoint()
            assert found is not None and found[1]["epoch"] == 3
            save_results(resumed, 2.0)
            resumed.finish()
        else:
            with pytest.raises(InputError, match="the run is finished"):
                RunWriter.resume(work / "run", CONFIG)
        assert value_of(work / "run") == 2.0
        write_run(work / "run", 3.0, overwrite=True)
        assert value_of(work / "run") == 3.0
        assert os.listdir(work) == ["run"]
        assert not (work / "run" / "checkpoint").exists()
    assert seen == {1.0, 2.0}


@pytest.mark.slow
def test_kill_in_a_first_finish_loses_nothing(stage: tuple[Path, Path]) -> None:
    template, work = stage
    writer = RunWriter.start(template / "run", CONFIG, Part())
    writer.checkpoint(*state(3))
    save_results(writer, 2.0)
    writer.close()
    for _ in killed_at_every_step(template, work, lambda: RunWriter.resume(work / "run", CONFIG).finish()):
        if (work / "run.partial").exists():
            with pytest.raises(InputError, match=r"not finished.*--resume"):
                open_run(work / "run")
            resumed = RunWriter.resume(work / "run", CONFIG)
            found = resumed.latest_checkpoint()
            assert found is not None and found[1]["epoch"] == 3
            resumed.finish()
        assert value_of(work / "run") == 2.0


@pytest.mark.slow
def test_kill_in_start_leaves_the_old_run_and_a_way_on(stage: tuple[Path, Path]) -> None:
    template, work = stage
    write_run(template / "run", 1.0)
    stale = RunWriter.start(template / "run", CONFIG, Part(), overwrite=True)
    stale.checkpoint(*state(1))
    for name in "abcdefgh":  # many files, so that they are not deleted in a lucky order
        stale.save_json(name, {})
    stale.close()
    act = lambda: RunWriter.start(work / "run", CONFIG, Part(), Part(), overwrite=True)  # noqa: E731
    for _ in killed_at_every_step(template, work, act):
        assert value_of(work / "run") == 1.0
        write_run(work / "run", 2.0, overwrite=True)
        assert value_of(work / "run") == 2.0
        assert os.listdir(work) == ["run"]


@pytest.mark.slow
def test_kill_in_a_first_start_is_said_in_one_line(stage: tuple[Path, Path]) -> None:
    template, work = stage
    (template / "run-other").mkdir()
    for _ in killed_at_every_step(template, work, lambda: RunWriter.start(work / "run", CONFIG, Part())):
        assert not (work / "run").exists()
        if (work / "run.partial").exists():
            with pytest.raises(InputError, match="--overwrite"):
                RunWriter.start(work / "run", CONFIG, Part())
            try:
                RunWriter.resume(work / "run", CONFIG)
            except InputError as error:
                assert "start anew with --overwrite" in str(error)
        write_run(work / "run", 2.0, overwrite=True)
        assert value_of(work / "run") == 2.0


def test_everything_is_on_disk_before_it_gets_its_name(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    renamed = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def checked(move: Callable[..., None], source: Path, target: Path) -> None:
        inside = [entry for entry in Path(source).rglob("*") if "checkpoint" not in entry.relative_to(source).parts]
        assert {entry.stat().st_ino for entry in (Path(source), *inside)} <= synced
        move(source, target)
        renamed.append(Path(target).name)
        synced.discard(Path(target).parent.stat().st_ino)  # the name is not on disk until its folder is

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", lambda source, target: checked(replace, source, target))
    monkeypatch.setattr(os, "rename", lambda source, target: checked(rename, source, target))
    writer = RunWriter.start(out, CONFIG, Part(), Part())
    writer.checkpoint(*state(1))
    assert (writer.path / "checkpoint").stat().st_ino in synced
    save_results(writer, 1.0)
    writer.finish()
    assert {"posterior.safetensors", "epoch-000001", "meta.json", "writer.json", "manifest.json", "run"} <= set(renamed)
    assert out.parent.stat().st_ino in synced


def test_an_error_between_the_renames_puts_the_old_run_back(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(out, 1.0)
    writer = RunWriter.start(out, CONFIG, Part(), overwrite=True)
    writer.checkpoint(*state(1))
    save_results(writer, 2.0)
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        if Path(source).name == "run.partial":
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(MachineError, match=r"run: cannot be written .*--resume"):
        writer.finish()
    monkeypatch.undo()
    assert (out / "manifest.json").is_file()
    assert value_of(out) == 1.0
    RunWriter.resume(out, CONFIG).finish()
    assert value_of(out) == 2.0


# --- round trips -----------------------------------------------------------------------------------------------------


def test_a_run_comes_back(out: Path) -> None:
    writer = RunWriter.start(out, CONFIG, Part("data"), Part("split"))
    rows: list[dict[str, Any]] = [
        {"epoch": 0, "elbo": -1 / 3, "note": 'a, "b"\n'},
        {"epoch": 1, "elbo": -math.pi * 1e9, "recall@300": 0.1},
    ]
    writer.save_history(rows)
    writer.save_json("metrics", {"recall@50": np.float64(0.1), "n": np.int64(3), "cutoffs": (50, 100)})
    writer.save_tensors("posterior", {"u_loc": torch.ones(2, 3)})
    assert not out.exists()
    assert writer.finish() == out
    run = open_run(out)
    assert run.config == CONFIG | {"schema": 1}
    assert run.metrics() == {"recall@50": 0.1, "n": 3, "cutoffs": [50, 100]}
    history = run.history()
    assert history["epoch"].tolist() == [0, 1]
    assert history["elbo"].tolist() == [row["elbo"] for row in rows]
    assert history["note"].tolist() == ['a, "b"\n', ""]
    assert math.isnan(history["recall@300"][0]) and history["recall@300"][1] == 0.1
    assert torch.equal(run.tensors("posterior")["u_loc"], torch.ones(2, 3))
    assert sorted(file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()) == [
        "config.json",
        "data/dataset/part.json",
        "data/split/part.json",
        "history.csv",
        "manifest.json",
        "metrics.json",
        "posterior.safetensors",
    ]
    assert set(json.loads((out / "manifest.json").read_text())["files"]) == set(run.files)


def test_an_empty_history_comes_back_empty(out: Path) -> None:
    writer = RunWriter.start(out, CONFIG)
    writer.save_history([])
    writer.finish()
    assert len(open_run(out).history()) == 0


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    ],
    ids=str,
)
def test_tensors_of_every_dtype_come_back(out: Path, dtype: torch.dtype) -> None:
    writer = RunWriter.start(out, CONFIG)
    tensors = {
        "matrix": torch.arange(6).reshape(2, 3).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.zeros(0, 3, dtype=dtype),
    }
    writer.checkpoint(tensors, {"epoch": 0})
    found = writer.latest_checkpoint()
    assert found is not None
    assert found[0].keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[0][name].dtype == dtype
        assert found[0][name].shape == tensor.shape
        assert torch.equal(found[0][name], tensor)


def test_tensors_that_share_memory_come_back(out: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "base": base,
        "same": base,
        "transposed": base.T,
        "row": base[1],
        "strided": base[:, ::2],
        "expanded": base[0, 0].expand(3),
        "parameter": torch.nn.Parameter(base),
        "empty": base[:0],
        "empty too": base[3:],
    }
    writer = RunWriter.start(out, CONFIG)
    writer.save_tensors("posterior", tensors)
    writer.finish()
    found = open_run(out).tensors()
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_the_random_state_comes_back(out: Path) -> None:
    writer = RunWriter.start(out, CONFIG)
    writer.checkpoint({"random": torch.get_rng_state()}, {"epoch": 0})
    drawn = torch.rand(5)
    found = writer.latest_checkpoint()
    assert found is not None
    torch.set_rng_state(found[0]["random"])
    assert torch.equal(torch.rand(5), drawn)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(), plain, max_size=5), st.integers(0, 10**9))
def test_meta_comes_back(tmp_path: Path, meta: dict[str, Any], epoch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)  # for speed
        writer = RunWriter.start(tmp_path / "run", CONFIG, overwrite=True)
        meta = meta | {"epoch": epoch}
        writer.checkpoint({}, meta)
        found = writer.latest_checkpoint()
    assert found is not None
    assert repr(found[1]) == repr(meta)  # by repr: NaN, and -0.0, and True that is not 1


@pytest.mark.parametrize(
    "meta", [{1: 2}, {"a": {0: 1}}, {"a": [object()]}, {"a": {1, 2}}, {"a": np.ones(2)}, {"a": b""}]
)
def test_meta_that_would_not_come_back_is_refused(out: Path, meta: dict[Any, Any]) -> None:
    writer = RunWriter.start(out, CONFIG)
    writer.checkpoint(*state(1))
    with pytest.raises(TypeError, match="JSON"):
        writer.checkpoint({}, {"epoch": 2} | meta)
    found = writer.latest_checkpoint()
    assert found is not None and found[1]["epoch"] == 1


def test_names_of_files_are_checked(out: Path) -> None:
    writer = RunWriter.start(out, CONFIG)
    for name in ("config", "manifest", "writer", "../up", "", ".hidden", "a/b"):
        with pytest.raises(ValueError, match="cannot be the name"):
            writer.save_json(name, {})


# --- damage ----------------------------------------------------------------------------------------------------------


def test_200_flipped_bytes_are_all_found(copied: Path) -> None:
    files = sorted(file for file in copied.rglob("*") if file.is_file())
    rng = random.Random(0)
    for _ in range(200):
        file = rng.choice(files)
        whole = file.read_bytes()
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(flipped)
        with pytest.raises(InputError) as caught:
            open_run(copied)
        if file.name != "manifest.json":  # a wrong digest in the manifest is found as a wrong file
            assert caught.value.path == file
            assert "fit again or copy the folder again" in str(caught.value)
        file.write_bytes(whole)
    open_run(copied)


def test_every_flipped_byte_of_the_manifest_is_found(copied: Path) -> None:
    manifest = copied / "manifest.json"
    whole = manifest.read_bytes()
    rng = random.Random(1)
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << rng.randrange(8)
        manifest.write_bytes(flipped)
        with pytest.raises(InputError):
            open_run(copied)


@pytest.mark.parametrize("name", ["posterior.safetensors", "config.json", "data/dataset/part.json", "manifest.json"])
@pytest.mark.parametrize("keep", [0, 1, -1])
def test_a_truncated_file_is_named(copied: Path, name: str, keep: int) -> None:
    file = copied / name
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match="fit again or copy the folder again") as caught:
        open_run(copied)
    assert caught.value.path == file


@pytest.mark.parametrize("name", ["posterior.safetensors", "config.json", "data/dataset/part.json"])
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(InputError, match="is missing") as caught:
        open_run(copied)
    assert caught.value.path == copied / name


def test_a_folder_in_place_of_a_file_is_named(copied: Path) -> None:
    (copied / "history.csv").unlink()
    (copied / "history.csv").mkdir()
    with pytest.raises(InputError, match=r"history\.csv: is missing"):
        open_run(copied)


def test_files_that_are_not_listed_are_not_read(copied: Path) -> None:
    (copied / "other.json").write_text("{}")
    run = open_run(copied)
    with pytest.raises(InputError, match=r"has no other\.json.*metrics\.json"):
        run.json("other")
    with pytest.raises(InputError, match=r"has no samples\.safetensors.*posterior\.safetensors"):
        run.tensors("samples")


@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_a_newer_schema_is_refused(copied: Path, name: str) -> None:
    content = json.loads((copied / name).read_text())
    (copied / name).write_text(dump_json(content | {"schema": 2}))
    if name == "config.json":
        seal(copied)
    with pytest.raises(InputError, match=f"{name}: was written by a newer version.*update"):
        open_run(copied)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"schema": 1}', '{"schema": true, "files": {}}', "[" * 100000, "\xff"]
)
def test_a_manifest_that_is_none_is_refused(copied: Path, content: str) -> None:
    (copied / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"manifest\.json: is damaged"):
        open_run(copied)


def test_a_manifest_cannot_reach_outside(copied: Path) -> None:
    entry = {"sha256": "0" * 64, "bytes": 1}
    for name in ("../secret", "/etc/passwd", "data/../../secret"):
        (copied / "manifest.json").write_text(dump_json({"schema": 1, "files": {name: entry}}))
        with pytest.raises(InputError, match="outside of the folder"):
            open_run(copied)


class Malicious:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sentinel),)


@pytest.mark.parametrize("name", ["posterior.safetensors", "metrics.json", "config.json", "history.csv"])
@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_is_never_run(copied: Path, tmp_path: Path, name: str, write: Callable[..., None]) -> None:
    write(Malicious(tmp_path / "owned"), copied / name)
    seal(copied)
    with pytest.raises(InputError) as caught:
        run = open_run(copied)
        run.tensors()
        run.metrics()
        run.history()
    assert caught.value.path == copied / name
    assert not (tmp_path / "owned").exists()


def test_a_damaged_checkpoint_is_passed_over_and_said(out: Path) -> None:
    writer = RunWriter.start(out, CONFIG)
    for epoch in (1, 2, 3):
        writer.checkpoint(*state(epoch))
    folder = writer.path / "checkpoint"
    assert sorted(entry.name for entry in folder.iterdir()) == ["epoch-000002", "epoch-000003"]
    newest = folder / "epoch-000003" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    found = writer.latest_checkpoint()
    assert found is not None and found[1]["epoch"] == 2
    assert len(writer.notes) == 1 and "epoch-000003" in writer.notes[0]
    (folder / "epoch-000002" / "meta.json").unlink()
    with pytest.raises(InputError, match="start anew with --overwrite") as caught:
        writer.latest_checkpoint()
    assert caught.value.path == newest


def test_every_flipped_byte_of_a_checkpoint_is_found(out: Path) -> None:
    writer = RunWriter.start(out, CONFIG)
    writer.checkpoint(*state(1))
    for file in (writer.path / "checkpoint" / "epoch-000001").iterdir():
        whole = file.read_bytes()
        for position in range(len(whole)):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << position % 8
            file.write_bytes(flipped)
            with pytest.raises(InputError):
                writer.latest_checkpoint()
        file.write_bytes(whole)
    assert writer.latest_checkpoint() is not None


def test_epochs_of_checkpoints_grow(out: Path) -> None:
    writer = RunWriter.start(out, CONFIG)
    assert writer.latest_checkpoint() is None
    writer.checkpoint(*state(999_999))
    writer.checkpoint(*state(1_000_000))
    found = writer.latest_checkpoint()
    assert found is not None and found[1]["epoch"] == 1_000_000
    with pytest.raises(ValueError, match="comes after"):
        writer.checkpoint(*state(5))


# --- full disks, closed doors ----------------------------------------------------------------------------------------


def test_a_full_disk_keeps_the_checkpoint_before(out: Path) -> None:
    writer = RunWriter.start(out, CONFIG)
    writer.checkpoint(*state(1))

    def act() -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        writer.checkpoint({"big": torch.ones(1 << 18)}, {"epoch": 2})
        return ""

    status, answer = in_child(act)
    assert status == 1
    assert "tensors.safetensors: cannot be written (File too large); free some space" in answer
    assert [entry.name for entry in (writer.path / "checkpoint").iterdir()] == ["epoch-000001"]
    found = writer.latest_checkpoint()
    assert found is not None and found[1]["epoch"] == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_no_file_is_half_written(out: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str) -> None:
    writer = RunWriter.start(out, CONFIG)
    save_results(writer, 1.0)
    before = {file.name: file.read_bytes() for file in writer.path.iterdir() if file.is_file()}

    def failing(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, failing)
    for save in (
        lambda: writer.save_tensors("posterior", {"u_loc": torch.zeros(9)}),
        lambda: writer.save_json("metrics", {"new": 1}),
        lambda: writer.save_json("other", {"new": 1}),
        lambda: writer.save_history([{"new": 1}]),
        lambda: writer.checkpoint(*state(1)),
        writer.finish,
    ):
        with pytest.raises(MachineError, match=os.strerror(number)):
            save()
    assert {file.name: file.read_bytes() for file in writer.path.iterdir() if file.is_file()} == before
    assert list((writer.path / "checkpoint").iterdir()) == []
    assert not out.exists()


@pytest.mark.parametrize("text", ["[Errno 28] No space left on device", "I/O error: Full (os error 28)"])
def test_a_full_disk_in_start_leaves_nothing(out: Path, text: str) -> None:
    class Unlucky(Part):
        def save(self, folder: Path) -> None:
            super().save(folder)
            raise OSError(text)

    with pytest.raises(MachineError, match=r"data: cannot be written \(No space left on device\); free some space"):
        RunWriter.start(out, CONFIG, Unlucky())
    assert list(out.parent.iterdir()) == []


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    for out in (tmp_path / "file" / "run", tmp_path / "file" / "a" / "run"):
        with pytest.raises(InputError, match=r"is a file, no folder.*--out") as caught:
            RunWriter.start(out, CONFIG)
        assert caught.value.path == tmp_path / "file"


def test_a_parent_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    with pytest.raises(InputError, match=r"is not writable.*--out") as caught:
        RunWriter.start(tmp_path / "run", CONFIG)
    assert caught.value.path == tmp_path


def test_a_parent_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*arguments: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "mkdir", denied)
    with pytest.raises(InputError, match=r"no permission.*--out") as caught:
        RunWriter.start(tmp_path / "new" / "run", CONFIG)
    assert caught.value.path == tmp_path / "new"


def test_parents_are_made(tmp_path: Path) -> None:
    assert value_of(write_run(tmp_path / "a" / "b" / "run")) == 1.0


# --- what is already there -------------------------------------------------------------------------------------------


def test_a_run_is_not_replaced_unasked(out: Path) -> None:
    write_run(out)
    with pytest.raises(InputError, match="exists; give --overwrite"):
        RunWriter.start(out, CONFIG)
    assert value_of(out) == 1.0


def test_a_run_is_replaced_only_by_a_finished_one(out: Path) -> None:
    write_run(out, 1.0)
    writer = RunWriter.start(out, CONFIG, overwrite=True)
    save_results(writer, 2.0)
    assert value_of(out) == 1.0
    writer.finish()
    assert value_of(out) == 2.0
    assert [entry.name for entry in out.parent.iterdir()] == ["run"]


def test_an_unfinished_run_is_not_replaced_unasked(out: Path) -> None:
    RunWriter.start(out, CONFIG).checkpoint(*state(1))
    with pytest.raises(InputError, match="--resume, or start anew with --overwrite"):
        RunWriter.start(out, CONFIG)
    assert RunWriter.resume(out, CONFIG).latest_checkpoint() is not None
    assert RunWriter.start(out, CONFIG, overwrite=True).latest_checkpoint() is None


@pytest.mark.parametrize("name", ["run", "run.partial"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_run_is_never_replaced(out: Path, name: str, kind: str) -> None:
    stranger = out.parent / name
    if kind == "folder":
        stranger.mkdir()
        stranger = stranger / "thesis.txt"
    stranger.write_text("dear")
    with pytest.raises(InputError, match="exists and is no run folder; choose another --out"):
        RunWriter.start(out, CONFIG, overwrite=True)
    assert stranger.read_text() == "dear"


def test_what_came_during_the_fit_is_not_replaced(out: Path) -> None:
    writer = RunWriter.start(out, CONFIG, overwrite=True)
    save_results(writer, 1.0)
    out.mkdir()
    (out / "thesis.txt").write_text("dear")
    with pytest.raises(InputError, match=r"put here during the fit.*--resume"):
        writer.finish()
    assert (out / "thesis.txt").read_text() == "dear"
    out.rename(out.with_name("elsewhere"))
    RunWriter.resume(out, CONFIG).finish()
    assert value_of(out) == 1.0


@pytest.mark.parametrize("name", ["", "/", "a\0b", "run.partial", "run.old-pid7"])
def test_names_that_cannot_be_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is no name for a run"):
        RunWriter.start(name, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_a_change_of_folder_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    writer = RunWriter.start("run", CONFIG)
    monkeypatch.chdir("elsewhere")
    save_results(writer, 1.0)
    writer.finish()
    assert value_of(tmp_path / "run") == 1.0


def test_a_link_is_replaced_and_its_target_kept(out: Path) -> None:
    target = write_run(out.parent / "target", 1.0)
    out.symlink_to(target)
    assert value_of(out) == 1.0
    write_run(out, 2.0, overwrite=True)
    assert (value_of(out), value_of(target)) == (2.0, 1.0)
    assert sorted(entry.name for entry in out.parent.iterdir()) == ["run", "target"]


def test_two_processes_do_not_write_one_run(out: Path) -> None:
    writer = RunWriter.start(out, CONFIG)
    writer.checkpoint(*state(1))
    status, answer = in_child(lambda: str(RunWriter.resume(out, CONFIG)))
    assert (status, "another process is writing this run" in answer) == (2, True)
    status, answer = in_child(lambda: str(RunWriter.start(out, CONFIG, overwrite=True)))
    assert (status, "another process is writing this run" in answer) == (2, True)
    with writer:
        pass
    assert in_child(lambda: str(RunWriter.resume(out, CONFIG)))[0] == 0


# --- resume ----------------------------------------------------------------------------------------------------------


def started(folder: Path, **options: Any) -> RunWriter:
    config = run_config("svi", CONFIG["options"] | options, dataset=Part(fingerprint="d"), split=Part(fingerprint="s"))
    return RunWriter.start(folder, config, Part(), Part())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 4}, "--epochs is 4, but the run was begun with 3"),
        ({"mode": "map"}, '--mode is "map", but the run was begun with "bayes"'),
        ({"lambda_u": 0.2}, "--lambda-u is 0.2, but the run was begun with 0.1; give --lambda-u its old value"),
        ({"extra": None}, "--extra is null, but the run was begun with not known"),
    ],
)
def test_a_changed_option_is_named(out: Path, change: dict[str, Any], message: str) -> None:
    started(out)
    with pytest.raises(InputError) as caught:
        RunWriter.resume(out, run_config("svi", CONFIG["options"] | change))
    assert message in str(caught.value)
    assert "start anew with --overwrite" in str(caught.value)


def test_an_option_left_out_is_named(out: Path) -> None:
    started(out)
    with pytest.raises(InputError, match="--mode is not known, but the run was begun with"):
        RunWriter.resume(out, run_config("svi", {"epochs": 3, "lambda_u": 0.1}))


def test_free_options_may_differ(out: Path) -> None:
    started(out, out="a", resume=False, overwrite=True, hidden=(200, 100), factors=10, threads=1)
    options = {"out": "b", "resume": True, "overwrite": False, "hidden": [200, 100], "factors": 10.0, "threads": 1}
    given = run_config("svi", CONFIG["options"] | options)
    assert RunWriter.resume(out, given).config["options"]["out"] == "a"
    given["options"]["threads"] = 2
    with pytest.raises(InputError, match="--threads"):
        RunWriter.resume(out, given)
    RunWriter.resume(out, given, free=[*FREE_OPTIONS, "threads"])


def test_other_data_are_refused(out: Path) -> None:
    started(out)
    same = Part(fingerprint="d")
    RunWriter.resume(out, run_config("svi", CONFIG["options"], dataset=same))
    with pytest.raises(InputError, match="the data have changed since the run was begun"):
        RunWriter.resume(out, run_config("svi", CONFIG["options"], dataset=Part(fingerprint="x")))
    with pytest.raises(InputError, match="the split has changed since the run was begun"):
        RunWriter.resume(out, run_config("svi", CONFIG["options"], dataset=same, split=Part(fingerprint="x")))
    with pytest.raises(InputError, match="begun by 'svi', not 'mcmc'"):
        RunWriter.resume(out, run_config("mcmc", CONFIG["options"]))


def test_other_versions_are_said(out: Path) -> None:
    started(out)
    given = run_config("svi", CONFIG["options"])
    assert RunWriter.resume(out, given).notes == []
    given["versions"]["torch"] = "9.9"
    notes = RunWriter.resume(out, given).notes
    assert len(notes) == 1 and "torch" in notes[0] and "9.9" in notes[0]


def test_nothing_to_resume(out: Path) -> None:
    with pytest.raises(InputError, match="no unfinished run; start it without --resume"):
        RunWriter.resume(out, CONFIG)
    write_run(out)
    with pytest.raises(InputError, match="the run is finished"):
        RunWriter.resume(out, CONFIG)


@pytest.mark.parametrize("name", ["data/dataset/part.json", "config.json", "writer.json"])
def test_a_damaged_unfinished_run_is_refused(out: Path, name: str) -> None:
    file = started(out).path / name
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(InputError, match="start anew with --overwrite") as caught:
        RunWriter.resume(out, CONFIG)
    assert caught.value.path == file


def test_a_half_written_file_does_not_get_into_the_run(out: Path) -> None:
    writer = RunWriter.start(out, CONFIG)
    save_results(writer, 1.0)
    (writer.path / ".posterior.safetensors.new").write_bytes(b"half")
    writer.finish()
    assert not [file for file in out.rglob(".*")]


# --- opening ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_opened_says_why(out: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        open_run(out)
    out.write_text("text")
    with pytest.raises(InputError, match="is a file, no run folder"):
        open_run(out)
    out.unlink()
    out.mkdir()
    with pytest.raises(InputError, match=r"no run folder \(no manifest\.json\)"):
        open_run(out)
    out.rmdir()
    RunWriter.start(out, CONFIG)
    for path in (out, out.with_name("run.partial")):
        with pytest.raises(InputError, match=r"not finished; go on with --resume --out .*run$"):
            open_run(path)


def test_a_run_without_data_says_so(out: Path) -> None:
    RunWriter.start(out, CONFIG).finish()
    for read in (open_run(out).dataset, open_run(out).split, open_run(out).items):
        with pytest.raises(InputError, match="the run holds no"):
            read()


# --- config ----------------------------------------------------------------------------------------------------------


def test_the_config_says_where_numbers_came_from() -> None:
    config = run_config(
        "svi", {"hidden": (200, 100)}, objective="elbo", dataset=Part(fingerprint="d"), guide="structured"
    )
    assert config["versions"]["torch"] == metadata.version("torch")  # without the local version, such as +cu130
    assert config["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(config["versions"]) >= {"pyro-ppl", "numpy", "scipy", "pandas", "safetensors"}
    assert config["fingerprints"] == {"data": "d"}
    assert (config["schema"], config["command"], config["objective"], config["tempered"]) == (1, "svi", "elbo", False)
    assert config["options"] == {"hidden": [200, 100]}
    assert config["guide"] == "structured"
    assert json.loads(json.dumps(config)) == config


def test_the_commit_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyro_cvae").mkdir()
    monkeypatch.setattr(config_module, "__file__", str(tmp_path / "pyro_cvae" / "runs" / "config.py"))
    assert config_module._commit() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert config_module._commit() is None
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert config_module._commit() == head
    (tmp_path / "inner" / "pyro_cvae").mkdir(parents=True)  # installed inside of somebody else's repository
    monkeypatch.setattr(config_module, "__file__", str(tmp_path / "inner" / "pyro_cvae" / "runs" / "config.py"))
    assert config_module._commit() is None
    monkeypatch.setenv("PATH", "")
    assert config_module._commit() is None


def test_importing_is_light() -> None:
    code = "import sys, pyro_cvae.runs; print({'torch', 'pandas', 'scipy', 'numpy', 'pyarrow'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "set()"


# --- real data, and runs without users -------------------------------------------------------------------------------


@pytest.fixture
def data() -> tuple[Dataset, Split]:
    def pairs(users: list[int], items: list[int]) -> Interactions:
        return Interactions.from_arrays(users, items, n_users=3, n_items=4)

    counts = sp.csr_matrix(np.array([[1.0, 0, 2], [0, 0, 0], [0, 3, 0], [1, 1, 1]]))
    dataset = Dataset(
        "toy",
        pairs([0, 0, 1, 2, 2], [0, 2, 1, 0, 3]),
        Content(counts, ("alpha", "beta", "gamma")),
        np.array(["Anna-user", "Bob-user", "Cleo-user"], object),
        np.array([10, 20, 30, 40]),
        np.array(["One", "Two", "Three", "Four"], object),
        {"u": np.ones((3, 2))},
    )
    split = Split(
        pairs([0, 1, 2], [0, 1, 0]), pairs([0, 2], [2, 3]), None, np.array([True, False, False]), {"kind": "x"}
    )
    return dataset, split


def test_data_and_split_come_back(out: Path, data: tuple[Dataset, Split]) -> None:
    dataset, split = data
    config = run_config("svi", {}, dataset=dataset, split=split)
    writer = RunWriter.start(out, config, dataset, split)
    assert writer.dataset().fingerprint() == dataset.fingerprint()
    assert writer.split().fingerprint() == split.fingerprint()
    writer.finish()
    run = open_run(out)
    assert run.dataset().fingerprint() == run.config["fingerprints"]["data"] == dataset.fingerprint()
    assert run.split().fingerprint() == run.config["fingerprints"]["split"] == split.fingerprint()


def test_a_run_without_users_holds_nothing_of_them(out: Path, data: tuple[Dataset, Split]) -> None:
    dataset, split = data
    writer = RunWriter.start(out, run_config("svi", {"mode": "bayes"}), dataset, split)
    secret = 0.123456789
    tensors = {
        "u_loc": torch.full((3, 2), secret),
        "u_scale_tril": torch.full((3, 2, 2), secret),
        "v_loc": torch.ones(4, 2),
        "network.encoder.weight": torch.ones(2, 3),
    }
    writer.save_tensors("posterior", tensors)
    writer.save_tensors("samples", {"u": torch.full((3, 2), secret)})
    writer.save_json("metrics", {"recall@50": 0.1})
    writer.save_json("per_user", {"Anna-user": 0.5})
    writer.save_history([{"epoch": 1, "elbo": -1.5}])
    run = open_run(writer.finish())

    copy = export_without_users(run, out.parent / "copy")
    assert set(copy.tensors()) == {"v_loc", "network.encoder.weight"}
    assert copy.metrics() == {"recall@50": 0.1}
    assert copy.history()["elbo"].tolist() == [-1.5]
    assert copy.config == run.config | {"without_users": True}
    for read in (copy.dataset, copy.split):
        with pytest.raises(InputError, match=r"exported without users.*use the run that it was exported from"):
            read()
    items = copy.items()
    assert (items.n_users, items.n_items, len(items.interactions), items.truth) == (0, 4, 0, None)
    assert items.item_ids.tolist() == [10, 20, 30, 40]
    assert items.titles is not None and items.titles.tolist() == ["One", "Two", "Three", "Four"]
    assert (items.content.counts != dataset.content.counts).nnz == 0
    assert run.items().fingerprint() == items.fingerprint()

    needle = np.float32(secret).tobytes()
    for file in copy.path.rglob("*"):
        if file.is_file():
            assert b"-user" not in file.read_bytes()
            assert needle not in file.read_bytes()
    names = {file.name for file in copy.path.rglob("*.parquet")}
    assert not names & {"train.parquet", "test.parquet", "validation.parquet"}
    again = export_without_users(copy.path, out.parent / "again")
    assert again.items().fingerprint() == items.fingerprint()
    with pytest.raises(InputError, match="exists"):
        export_without_users(run, out.parent / "copy")


def test_contents_of_every_kind_are_held_checked_and_exported(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MAPPED_BYTES", 0)
    present = np.array([True, True, False, True])
    pixels = np.arange(4 * 6, dtype=np.uint8).reshape(4, 1, 2, 3) * present[:, None, None, None]
    others = {"pixels": Images(pixels, present), "title-tokens": Tokens.fit(["a sky", "a sea", "", "a sea"])}
    pairs = Interactions.from_arrays([0, 1, 1], [0, 2, 3], n_users=2, n_items=4)
    content = Content(sp.csr_matrix((4, 0)))
    dataset = Dataset("d", pairs, content, ["ann-user", "bob-user"], [1, 2, 3, 4], others=others)
    config = run_config("svi", {}, dataset=dataset)
    writer = RunWriter.start(out, config, dataset)
    writer.close()
    RunWriter.resume(out, run_config("svi", {}, dataset=dataset)).close()
    changed = dataclasses.replace(dataset, others={"pixels": others["pixels"]})
    with pytest.raises(InputError, match="data have changed"):
        RunWriter.resume(out, run_config("svi", {}, dataset=changed))
    writer = RunWriter.resume(out, config)
    assert writer.dataset().fingerprint() == dataset.fingerprint()
    writer.save_tensors("posterior", {"v_loc": torch.zeros(4, 2)})
    run = open_run(writer.finish())
    assert run.dataset().fingerprint() == dataset.fingerprint() == run.config["fingerprints"]["data"]
    assert isinstance(run.dataset().others["pixels"].values, np.memmap)
    assert {f"data/dataset/content-{name}" for name in ("pixels.npy", "pixels.safetensors")} < set(run.files)

    copy = export_without_users(run, out.parent / "copy")
    items = copy.items()
    assert items.n_users == 0 and list(items.others) == list(others)
    np.testing.assert_array_equal(items.others["pixels"].values, pixels)
    assert items.others["title-tokens"].of(["sea"]).tokens.tolist() == [others["title-tokens"].vocabulary.index("sea")]
    mapped = run.dataset().others["pixels"].values
    shutil.rmtree(run.path)
    np.testing.assert_array_equal(mapped, pixels)  # a run that is replaced stays readable for who has it open

    array = copy.path / "data" / "dataset" / "content-pixels.npy"
    raw = bytearray(array.read_bytes())
    raw[-1] ^= 1
    array.write_bytes(raw)
    with pytest.raises(InputError, match=r"content-pixels\.npy: is damaged"):
        open_run(copy.path)


def test_a_failed_export_leaves_nothing(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(copied)
    monkeypatch.setattr(reader.Run, "items", lambda self: None)
    monkeypatch.setattr(shutil, "copyfile", lambda *paths: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(MachineError, match="free some space"):
        export_without_users(run, copied.parent / "copy")
    assert [entry.name for entry in copied.parent.iterdir()] == ["run"]
