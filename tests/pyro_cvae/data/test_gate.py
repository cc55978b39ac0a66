"""Strangers' files: what is no regular file, what unpacks without end, what says it is what it cannot be."""

import io
import os
import socket
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pyro_cvae.data import files, gate
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.errors import InputError

PAIRS = "user,item\n" + "".join(f"a,i{j}\n" for j in range(4))
ITEMS = "item,text\n" + "".join(f"i{j},comet {w}\n" for j, w in enumerate(("mast", "sail", "oven", "bread")))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").write_text(PAIRS)
    Path("items.csv").write_text(ITEMS)
    return tmp_path


def refused(*arguments):
    """The one line that a data set is refused with, in a process that would otherwise wait for ever."""
    code = "import sys; from pyro_cvae.data.registry import load_dataset as l; from pyro_cvae.errors import run_command"
    code += f"; sys.exit(run_command(lambda: l(*{arguments!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_pipe_is_refused_at_once(folder):
    os.mkfifo("pipe.csv")
    assert "pipe.csv: is a pipe, not a regular file" in refused("pipe.csv", "items.csv")


@pytest.mark.parametrize("place", ["data", "items", "contents", "lines", "npy", "npz"])
def test_what_is_no_regular_file_is_not_opened(folder, place):
    ending = {"npy": ".npy", "npz": ".npz"}.get(place, ".csv")
    path = f"odd{ending}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        with pytest.raises(InputError, match="is a socket, not a regular file"):
            if place == "lines":
                files.read_lines(path)
            elif place in ("data", "items"):
                load_dataset(*((path, "items.csv") if place == "data" else ("pairs.csv", path)))
            else:
                load_dataset("pairs.csv", "items.csv", [f"p={path}"])


@pytest.mark.parametrize(
    ("path", "words"),
    [("/dev/zero", "is a device"), ("loop.csv", "symbolic links"), (".", "is not a file"), ("gone.csv", "no such")],
)
def test_devices_loops_and_folders(folder, path, words):
    Path("loop.csv").symlink_to("loop.csv")
    Path("gone.csv").symlink_to("nowhere")
    with pytest.raises(InputError, match=words):
        gate.read_bytes(path)


def test_a_file_larger_than_its_kind_may_be_is_not_read(folder):
    with open("sparse.yaml", "wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(InputError, match="at most 1,024 are read"):
        gate.read_bytes("sparse.yaml", 1024)


def header(shape, descr="<f4"):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (63 - (len(text) + 10) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("(-2, -8)", "its shape is (-2, -8): it is damaged"),
        ("()", "holds a single value"),
        ("(4, 9223372036854775808, 0)", "it is damaged"),
        ("(4, 1152921504606846976)", "bytes instead of"),
    ],
)
def test_shapes_that_no_array_has(folder, shape, words):
    body = b"0" * 4 if shape == "()" else b"0" * 64
    Path("x.npy").write_bytes(header(shape) + body)
    with pytest.raises(InputError) as caught:
        load_dataset("pairs.csv", "items.csv", ["v=x.npy"])
    assert words in str(caught.value) and str(caught.value).startswith("x.npy: ")


def test_an_archive_that_unpacks_without_end_is_not_unpacked(folder):
    with zipfile.ZipFile("bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        stream = io.BytesIO()
        np.save(stream, np.array([f"i{j}" for j in range(4)]))
        archive.writestr("ids.npy", stream.getvalue())
        with archive.open("values.npy", "w", force_zip64=True) as member:
            member.write(header("(4, 50000000)"))
            for _ in range(50):
                member.write(bytes(16_000_000))
    with pytest.raises(InputError, match=r"would unpack from .* MiB to 763 MiB"):
        load_dataset("pairs.csv", "items.csv", ["v=bomb.npz"])


def test_a_member_that_lies_about_its_size(folder):
    with zipfile.ZipFile("lie.npz", "w") as archive:
        stream = io.BytesIO()
        np.save(stream, np.arange(4))
        archive.writestr("ids.npy", stream.getvalue())
        archive.writestr("values.npy", header("(4, 500)") + bytes(64))
    with pytest.raises(InputError, match="damaged"):
        load_dataset("pairs.csv", "items.csv", ["v=lie.npz"])


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([2**62, 5, 1, 1], pa.duration("s")), "the column time is of type duration[s]"),
        (pa.array([[1], [2], [3], [4]]), "the column time is of type list"),
        (pa.array([b"1", b"2", b"3", b"\xff"]), "the column time is of type binary"),
        (pa.array([{"a": 1}] * 4), "the column time is of type struct"),
        (pa.array([2**62, 5, 1, 1], pa.timestamp("ms")), "the column time cannot be read"),
    ],
)
def test_parquet_columns_that_are_no_values_of_ours(folder, column, words):
    pq.write_table(pa.table({"user": list("aabb"), "item": ["i0", "i1", "i0", "i1"], "time": column}), "p.parquet")
    with pytest.raises(InputError) as caught:
        load_dataset("p.parquet", "items.csv")
    assert words in str(caught.value)
    assert str(caught.value).startswith("p.parquet: ")


def test_a_column_that_is_not_read_may_be_of_any_type(folder):
    table = {"user": list("aabb"), "item": ["i0", "i1", "i0", "i1"], "genres": [["x"], ["y"], [], None]}
    pq.write_table(pa.table(table), "p.parquet")
    assert len(load_dataset("p.parquet", "items.csv").interactions) == 4


def test_text_that_is_no_utf8(folder):
    offsets = pa.py_buffer(np.array([0, 1, 2], np.int32).tobytes())
    letters = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"user": letters, "item": ["i0", "i1"]}), "p.parquet")
    with pytest.raises(InputError, match=r"p.parquet: is not a readable Parquet file \(.*UTF8"):
        load_dataset("p.parquet", "items.csv")


def test_a_parquet_file_of_a_billion_equal_rows(folder):
    """Run lengths make a few kilobytes of it; as values it would be larger than the machine."""
    ones = pa.array(np.zeros(2**20, np.int8))
    schema = pa.schema({"user": pa.int8(), "item": pa.int8()})
    with pq.ParquetWriter("bomb.parquet", schema) as writer:
        for _ in range(64):
            writer.write_table(pa.table({"user": ones, "item": ones}, schema))
    with pytest.raises(InputError, match="would unpack"):
        load_dataset("bomb.parquet", "items.csv")


def test_a_picture_of_too_many_pixels(folder):
    Path("pictures").mkdir()
    Image.new("1", (9000, 9000)).save("pictures/i0.png")
    with pytest.raises(InputError, match=r"i0.png: is no readable PNG or JPEG file \(9000 x 9000 pixels"):
        load_dataset("pairs.csv", "items.csv", ["p=pictures"])
