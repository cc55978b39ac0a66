"""Names and downloads, against a server on 127.0.0.1 that serves files made here."""

import http.server
import logging
import subprocess
import threading
from pathlib import Path

import pytest

from pyro_cvae.data import registry
from pyro_cvae.data.names import NAMES
from pyro_cvae.data.registry import REMOTE, RemoteFile, cache_folder, fetch, git_blob_sha1, load_dataset
from pyro_cvae.errors import InputError, MachineError

FILES = {"users.dat": b"2 0 2\n1 1\n", "mult.dat": b"1 0:1\n0\n2 1:3 0:1\n", "vocabulary.dat": b"alpha\nbeta\n"}


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A mirror of a repository; ``served.requests`` are the paths asked for, ``served.folder`` what it serves."""
    folder = tmp_path / "served"

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, *args):
            server.requests.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.folder = [], folder
    source = "someone/citeulike-t/" + 40 * "0"
    (folder / source).mkdir(parents=True)
    remotes = []
    for name, content in FILES.items():
        (folder / source / name).write_bytes(content)
        remotes.append(RemoteFile(name, f"{source}/{name}", git_blob_sha1(content)))
    server.source = folder / source
    monkeypatch.setitem(registry.REMOTE, "citeulike-t", tuple(remotes))
    monkeypatch.setenv("PYRO_CVAE_MIRROR", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("PYRO_CVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_name_is_downloaded_once_and_then_read_from_the_cache(served, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        data = load_dataset("citeulike-t")
    assert (data.name, data.n_users, data.n_items, data.n_features) == ("citeulike-t", 2, 3, 2)
    assert f"into {tmp_path / 'cache' / 'citeulike-t'}" in caplog.text
    assert sorted(p.name for p in (tmp_path / "cache" / "citeulike-t").iterdir()) == sorted(FILES)
    assert len(served.requests) == len(FILES)
    assert load_dataset("citeulike-t").fingerprint() == data.fingerprint()
    assert len(served.requests) == len(FILES)


def test_files_of_the_tags_are_downloaded_only_when_asked_for(served, tmp_path, monkeypatch):
    remotes = []
    for name, content in {"tags.dat": b"war\nlove\n", "tag-item.dat": b"2 0 2\n1 2\n"}.items():
        (served.source / name).write_bytes(content)
        remotes.append(RemoteFile(name, f"{served.source.relative_to(served.folder)}/{name}", git_blob_sha1(content)))
    monkeypatch.setitem(registry.FURTHER["tags"], "citeulike-t", tuple(remotes))
    assert not load_dataset("citeulike-t").others
    assert not any("tag" in path.rsplit("/", 1)[1] for path in served.requests)
    with pytest.raises(InputError, match="no tag is on 5 items or more"):
        load_dataset("citeulike-t", contents=["tags"])
    assert sum("tag" in path.rsplit("/", 1)[1] for path in served.requests) == 2


@pytest.mark.parametrize("content", registry.FURTHER)
def test_files_of_further_contents_have_names_of_their_own(content):
    assert registry.FURTHER[content].keys() == registry.REMOTE.keys()
    for name, remotes in registry.FURTHER[content].items():
        assert not {r.name for r in remotes} & {r.name for r in registry.REMOTE[name]}
        assert all(len(r.sha1) == 40 and r.source.endswith(f"/{r.name}") for r in remotes)


def test_a_download_that_was_cut_off_goes_on_with_the_files_that_are_missing(served, tmp_path):
    mult = served.source / "mult.dat"
    mult.rename(mult.with_suffix(".away"))
    with pytest.raises(MachineError, match=r"mult\.dat cannot be downloaded \(.*404.*fetch the file by hand into"):
        fetch("citeulike-t")
    assert [p.name for p in (tmp_path / "cache" / "citeulike-t").iterdir()] == ["users.dat"]
    mult.with_suffix(".away").rename(mult)
    fetch("citeulike-t")
    assert [path.rsplit("/", 1)[1] for path in served.requests].count("users.dat") == 1


def test_wrong_bytes_are_not_kept(served, tmp_path):
    (served.source / "users.dat").write_bytes(b"1 0\n")
    with pytest.raises(InputError) as caught:
        fetch("citeulike-t")
    text = str(caught.value)
    assert "wrong git hash" in text and f"by hand into {tmp_path / 'cache' / 'citeulike-t'}" in text
    assert caught.value.exit_code == 2 and "\n" not in text
    assert not (tmp_path / "cache").exists()


def test_a_cached_file_that_was_changed_is_found_and_not_replaced(served, tmp_path):
    folder = fetch("citeulike-t")
    (folder / "mult.dat").write_bytes(b"1 0:2\n0\n2 1:3 0:1\n")
    with pytest.raises(InputError, match=r"mult\.dat: is not the published file .* delete it"):
        load_dataset("citeulike-t")
    assert (folder / "mult.dat").read_bytes().startswith(b"1 0:2")


def test_offline_is_one_line_that_says_what_to_do(served, monkeypatch, tmp_path):
    monkeypatch.setenv("PYRO_CVAE_MIRROR", "http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(MachineError) as caught:
        load_dataset("citeulike-t")
    text = str(caught.value)
    assert "connect to the network" in text and str(tmp_path / "cache" / "citeulike-t") in text and "\n" not in text
    assert caught.value.exit_code == 1


def test_a_truncated_answer_or_a_senseless_mirror_is_a_machine_error(served, monkeypatch):
    real = http.server.SimpleHTTPRequestHandler.send_header

    def too_long(self, key, value):
        real(self, key, str(int(value) + 7) if key == "Content-Length" else value)

    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "send_header", too_long)
    with pytest.raises(MachineError, match="cannot be downloaded"):
        fetch("citeulike-t")
    monkeypatch.setenv("PYRO_CVAE_MIRROR", "no address")
    with pytest.raises(MachineError, match="cannot be downloaded"):
        fetch("citeulike-t")


def test_a_cache_that_cannot_be_written(served, monkeypatch, tmp_path):
    (tmp_path / "a-file").write_text("in the way")
    monkeypatch.setenv("PYRO_CVAE_CACHE", str(tmp_path / "a-file"))
    with pytest.raises(MachineError, match="PYRO_CVAE_CACHE"):
        fetch("citeulike-t")


def test_a_full_disk_leaves_no_half_file(served, monkeypatch, tmp_path):
    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(MachineError, match="No space left"):
        fetch("citeulike-t")
    assert list((tmp_path / "cache" / "citeulike-t").iterdir()) == []


def test_files_put_by_hand_into_the_cache_need_no_network(served, monkeypatch, tmp_path):
    monkeypatch.setenv("PYRO_CVAE_MIRROR", "http://127.0.0.1:9")
    folder = tmp_path / "cache" / "citeulike-t"
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    assert load_dataset("citeulike-t").n_users == 2


def test_the_cache_is_the_users_unless_it_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("PYRO_CVAE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().name == "pyro-cvae"
    monkeypatch.setenv("PYRO_CVAE_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_the_hash_is_gits(tmp_path):
    assert git_blob_sha1(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    (tmp_path / "f").write_bytes(FILES["mult.dat"])
    said = subprocess.run(["git", "hash-object", str(tmp_path / "f")], capture_output=True, text=True, check=True)
    assert git_blob_sha1(FILES["mult.dat"]) == said.stdout.strip()


def test_the_table_of_remote_files_is_well_formed():
    assert set(registry.REMOTE) == {"citeulike-t", "citeulike-a"}
    for name, remotes in registry.REMOTE.items():
        assert {"users.dat", "mult.dat", "vocabulary.dat"} <= {remote.name for remote in remotes}, name
        for remote in remotes:
            repository, commit = remote.source.split("/")[1:3]
            assert repository and len(commit) == 40 and int(commit, 16)
            assert len(remote.sha1) == 40 and int(remote.sha1, 16)


def test_the_names_of_simulators_and_a_folder_of_the_same_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("simulated").mkdir()
    assert load_dataset("simulated").name == "simulated"
    assert load_dataset("simulated-gaussian").interactions.complete
    with pytest.raises(InputError, match="no data set in this folder"):
        load_dataset("./simulated")


def test_data_of_the_net_are_among_the_names():
    assert set(REMOTE) == set(NAMES) - {name for name in NAMES if name.startswith("simulated")}
