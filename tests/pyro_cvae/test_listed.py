"""The manifest is the list of what may be read, and leads to plain files of the folder alone."""

import hashlib
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

import inference
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.errors import InputError
from pyro_cvae.runs import RunWriter, open_run
from tests.strangers import SMALL, catalogue, edit_json, seal


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted") / "run"
    inference.fit(catalogue(), out=out, validation=0.3, **SMALL)
    return out


@pytest.fixture
def run(fitted, tmp_path):
    shutil.copytree(fitted, tmp_path / "run")
    return tmp_path / "run"


def everything(run: Path) -> None:
    """Open a run in all its parts."""
    inference.load(run)
    opened = open_run(run)
    opened.items()
    opened.dataset()
    opened.split()


def refusal(run: Path) -> str:
    """The line that opening it ends in, at once."""
    found: list[BaseException] = []

    def attempt() -> None:
        try:
            everything(run)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it hangs"
    assert found, "it opens"
    assert isinstance(found[0], InputError), found
    assert "\n" not in str(found[0])
    return str(found[0])


def manifest(run: Path, change) -> None:
    edit_json(run / "manifest.json", lambda value: change(value["files"]))


def names(run: Path) -> list[str]:
    return list(json.loads((run / "manifest.json").read_text())["files"])


def test_every_file_that_is_read_has_to_be_listed(fitted, tmp_path):
    listed = names(fitted)
    assert len(listed) > 10
    for name in listed:
        run = tmp_path / "run"
        shutil.copytree(fitted, run)
        manifest(run, lambda files, name=name: files.pop(name) and None)
        assert "manifest" in refusal(run) or "the run has no" in refusal(run), name
        shutil.rmtree(run)


def test_other_files_are_never_read(run, monkeypatch):
    """Among them every name that a data set or a fit of another kind would have, as pipes that would hang a reader."""
    others = ["data/dataset/content-more.safetensors", "data/split/more.parquet", "extra.json", "tensors.safetensors",
              "writer.json", "checkpoint/epoch-000001/meta.json", "data/dataset/.new-x", "more.json"]  # fmt: skip
    for name in others:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(run / name)
    everything(run)


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/hostname",
        "data/../../secret",
        "data/dataset/../../../secret",
        "..",
        "a\\..\\b",
        "C:/x",
        "C:x",
    ],
)
def test_a_name_that_leads_out_is_refused(name, run):
    (run.parent / "secret").write_text("secret")
    entry = {"sha256": hashlib.sha256(b"secret").hexdigest(), "bytes": 6}
    manifest(run, lambda files: files.update({name: entry}))
    assert "names a file outside of the folder" in refusal(run)


@pytest.mark.parametrize(
    "name", ["", ".", "./config.json", "data//dataset", "data/", "a\nb", "a\x1bb", "manifest.json"]
)
def test_what_is_no_name_is_refused(name, run):
    manifest(run, lambda files: files.update({name: {"sha256": "0" * 64, "bytes": 0}}))
    text = refusal(run)
    assert "manifest.json: lists" in text
    assert "\x1b" not in text


def test_names_that_are_one_file_on_some_disks_are_refused(run):
    (run / "CONFIG.json").write_text((run / "config.json").read_text())
    seal(run)
    assert "which are one file on some disks" in refusal(run)


def test_a_name_that_is_there_twice_is_refused(run):
    text = (run / "manifest.json").read_text()
    entry = text[text.index('  "config.json"') : text.index("},") + 3]
    (run / "manifest.json").write_text(text.replace(entry, entry + entry, 1))
    assert "is damaged: no manifest" in refusal(run)


@pytest.mark.parametrize("size", [-1, 1.5, True, "12", None, 10**400, [], float("inf")])
def test_sizes_are_whole_numbers(size, run):
    manifest(run, lambda files: files["config.json"].update(bytes=size))
    assert "manifest.json: is damaged" in refusal(run)


@pytest.mark.parametrize("sha", [None, 5, [], {}])
def test_digests_are_texts(sha, run):
    manifest(run, lambda files: files["config.json"].update(sha256=sha))
    assert "manifest.json: is damaged" in refusal(run)


@pytest.mark.parametrize(
    "name", ["config.json", "posterior.safetensors", "data/dataset/items.parquet", "manifest.json"]
)
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "link to a pipe", "loop"])
def test_what_is_no_plain_file_is_refused_at_once(name, kind, run, tmp_path):
    path, away = run / name, tmp_path / "away"
    path.rename(away)
    if kind == "link":
        path.symlink_to(away)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    wanted = "is a link, which is not followed" if "l" in kind[:1] else "is missing: a "
    assert wanted in refusal(run)


def test_a_folder_of_the_run_that_is_a_link_is_refused(run, tmp_path):
    (run / "data" / "dataset").rename(tmp_path / "away")
    (run / "data" / "dataset").symlink_to(tmp_path / "away")
    assert "is a link, which is not followed" in refusal(run)


def test_a_link_to_a_whole_run_is_opened(run, tmp_path):
    (tmp_path / "latest").symlink_to(run)
    everything(tmp_path / "latest")


def test_what_a_name_in_the_data_leads_to_has_to_be_listed(run):
    """dataset.json and split.json name files too."""
    edit_json(run / "data/dataset/dataset.json", lambda v: v["others"].update({"../../../x": v["others"]["words"]}))
    seal(run)
    assert "a content cannot be called" in refusal(run)
    edit_json(run / "data/split/split.json", lambda v: v["parts"].append("../../config"))
    seal(run)
    with pytest.raises(InputError, match="its parts are not"):
        open_run(run).split()


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "metrics.json", "data/dataset/dataset.json"])
@pytest.mark.parametrize("what", ["[" * 200_000, '{"a":' * 100_000, "[" + "[]," * 1_500_000 + "0]", "9" * 10_000, ""])
def test_json_that_would_take_the_machine_is_one_line(name, what, run):
    (run / name).write_text(what)
    if name != "manifest.json":
        seal(run)
    assert name in refusal(run)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "data/../../secret"])
def test_a_run_in_progress_has_such_a_list_too(name, tmp_path):
    config = {"command": "svi", "options": {}}
    writer = RunWriter.start(tmp_path / "run", config, catalogue())
    writer.close()
    path = tmp_path / "run.partial" / "writer.json"
    edit_json(path, lambda value: value["files"].update({name: {"sha256": "0" * 64, "bytes": 0}}))
    with pytest.raises(InputError, match="names a file outside of the folder"):
        RunWriter.resume(tmp_path / "run", config)
    edit_json(path, lambda value: value.update(files=[1]))
    with pytest.raises(InputError, match=r"writer\.json: is damaged"):
        RunWriter.resume(tmp_path / "run", config)


def test_a_saved_data_set_needs_no_manifest(tmp_path):
    catalogue().save(tmp_path / "saved")
    assert Dataset.load(tmp_path / "saved").fingerprint() == catalogue().fingerprint()
