"""What the fuzz run is fed: good inputs of every kind, seeded damage to them, and the command that reads them."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import random
import socket
import sqlite3
import struct
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

SMALL = ("--factors", "2", "--hidden", "3", "--pretrain-epochs", "1", "--epochs", "1", "--threads", "1")
SVI = ("inference.svi", *SMALL, "--train-per-user", "2", "--out", "old", "--overwrite", "--quiet")
TABLES = ("--data", "pairs.csv", "--items", "items.csv")
TUNE = ("inference.tune", "coordinate", "--search", "lambda_u=1:1000:log", "--trials", "2", "--mode", "map", *SMALL)
TUNE += ("--sweeps", "1", "--validation", "0.3", "--train-per-user", "3", *TABLES, "--out", "best.yaml", "--quiet")
ON_RUNS: tuple[tuple[str, ...], ...] = (
    ("inference.recommend", "run", "--user", "u1"),
    ("inference.recommend", "run", "--similar", "i1", "--format", "csv"),
    ("inference.recommend", "run", "--likes", "i1", "i2", "--interval", "0.9"),
    ("inference.recommend", "run", "--user", "u2", "--new-items", "new.csv"),
    ("inference.evaluate", "run", "old"),
    ("inference.evaluate", "run", "--per-user", "users.csv"),
    ("inference.export", "run", "--out", "factors"),
    ("analysis.compare", "run", "old", "--resamples", "20", "--out", "compared"),
    ("analysis.report", "run", "--draws", "20", "--out", "page.html"),
    ("analysis.posterior", "run", "--draws", "20", "--out", "draws.nc"),
    ("analysis.diagnostics", "run", "--draws", "100", "--check-draws", "10"),
    ("analysis.calibration", "run", "--draws", "20", "--resamples", "20", "--out", "calibrated"),
)
MCMC = ("inference.mcmc", *SVI[1:], *TABLES, "--draws", "5", "--warmup", "2", "--chains", "1")
BANDIT = ("analysis.bandit", "--rounds", "2", "--replications", "2", "--users", "6", "--first-items", "20")
BANDIT += ("--factors", "2", "--slate", "1", "--first-ratings", "2")
NUMBERS = ("-1", "0", "nan", "inf", "-inf", "1e400", "1e308", "9" * 40, "9" * 5000)
NUMBERS += ("", "x", "1_0", "٣", "0x1F", "1e-320")
TEXTS = ("", " ", "-", "..", "/", "nowhere", "x" * 5000, "a\nb", "\x1b[2J", "ä")
TEXTS += ("None", "auto", "[", "{a: 1}", "inference")
KEYS = ("hidden", "contents", "factors", "tied", "mode")
ODD_JSON = (None, True, -1, 2**70, 1e308, float("nan"), "", "x" * 3000, [], [[]], {}, {"a": {"b": []}}, "os.system")
ODD_YAML = ("null", "{}", "[null]", "!!set {a}", ".inf", "~", "0o7", "2020-01-01", "!!binary aGk=")


@dataclass(frozen=True)
class Case:
    """One case: its kind, the command line, and how the folder of good inputs is damaged before."""

    kind: str
    argv: tuple[str, ...]
    damage: Callable[[Path], None]


def prepare(folder: Path) -> None:
    """Good inputs of every kind, and runs of them, made with the package itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    import inference
    from inference.tune import main as tune
    from pyro_cvae.data.registry import load_dataset

    os.chdir(folder)
    pairs = [(f"u{u}", f"i{(u + j) % 9}", 1 + j, 1000 * u + j) for u in range(1, 7) for j in (1, 2, 3, 5)]
    words = ("comet nebula", "sail mast", "oven pastry")
    items = [(f"i{j}", f"{words[j % 3]} {words[j % 2]} comet", f"Title {j}") for j in range(9)]
    for name, header, rows in (("pairs", "user,item,weight,time", pairs), ("items", "item,text,title", items)):
        Path(f"{name}.csv").write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
        columns = dict(zip(header.split(","), map(list, zip(*rows, strict=True)), strict=True))
        pq.write_table(pa.table(columns), f"{name}.parquet")
    Path("atomic").mkdir()
    inter = ["user_id:token\titem_id:token\ttimestamp:float", *(f"{u}\t{i}\t{t}" for u, i, _, t in pairs)]
    Path("atomic/d.inter").write_text("\n".join(inter) + "\n")
    item = ["item_id:token\ttext:token_seq", *(f"{i}\t{text}" for i, text, _ in items)]
    Path("atomic/d.item").write_text("\n".join(item) + "\n")
    Path("cite").mkdir()
    Path("cite/users.dat").write_text("3 0 1 2\n3 1 2 0\n2 0 2\n")
    Path("cite/mult.dat").write_text("1 0:1\n2 0:1 1:2\n2 1:3 0:1\n")
    Path("cite/vocabulary.dat").write_text("alpha\nbeta\n")
    np.save("v.npy", np.arange(36, dtype=np.float32).reshape(9, 4))
    np.savez("v.npz", ids=np.array([f"i{j}" for j in range(9)]), values=np.arange(36.0).reshape(9, 4))
    Path("pictures").mkdir()
    for j in range(9):
        Image.fromarray(np.full((8, 8), 20 * j, np.uint8)).save(f"pictures/i{j}.{'png' if j % 2 else 'jpg'}")
    Path("options.yaml").write_text("factors: 2\nhidden: [3]\nseed: 1\nlambda_v: 2.5\ncontents: [titles]\ntied: true\n")
    Path("ids.txt").write_text("u1\nu2\n")
    Path("new.csv").write_text("item,text,title\nn1,comet sail,One\nn2,oven,Two\n")
    small = {"factors": 2, "hidden": (3,), "pretrain_epochs": 1, "epochs": 2, "train_per_user": 2, "threads": 1}
    given = {"data": "pairs.csv", "items": "items.csv"}
    for out, seed in (("run", 0), ("old", 1)):
        inference.fit(load_dataset("pairs.csv", "items.csv"), out=out, seed=seed, **small, **given)
    tune(list(TUNE[1:]))

    def stop(step: int, n_steps: int, row: dict[str, Any]) -> None:
        if step == 3:
            raise KeyboardInterrupt

    try:
        half = {"out": "half", "checkpoint_seconds": 0.0, "on_step": stop}
        inference.fit(load_dataset("pairs.csv", "items.csv"), **small, **given, **half)
    except KeyboardInterrupt:
        pass


def case(seed: int) -> Case:
    """The case of a seed; kinds take turns."""
    kinds = list(KINDS)
    kind = kinds[seed % len(kinds)]
    return KINDS[kind](kind, random.Random(seed))


# --- damage ----------------------------------------------------------------------------------------------------------


def scrambled(raw: bytes, draw: random.Random) -> bytes:
    """Bytes with one to four changes: bits, cuts, blocks, tokens."""
    body = bytearray(raw)
    for _ in range(draw.randint(1, 4)):
        if not body:
            return draw.choice((b"", b"\0", b"\xff\xfe"))
        at, length = draw.randrange(len(body)), draw.choice((1, 2, 8, 64, 512))
        how = draw.randrange(9)
        if how == 0:
            body[at] ^= 1 << draw.randrange(8)
        elif how == 1:
            del body[at:]
        elif how == 2:
            del body[at : at + length]
        elif how == 3:
            body[at:at] = draw.randbytes(length)
        elif how == 4:
            body[at : at + length] = bytes(min(length, len(body) - at))
        elif how == 5:
            body[at:at] = body[at : at + length] * draw.choice((1, 3, 100))
        elif how == 6:
            body[at : at + 4] = struct.pack("<i", draw.choice((-1, 2**31 - 1, -(2**31), 0, 2**16)))
        elif how == 7:
            body[at : at + length] = draw.choice((*NUMBERS, *TEXTS)).encode("utf-8", "replace")
        else:
            rows = bytes(body).split(b"\n")
            draw.shuffle(rows)
            body = bytearray(b"\n".join(rows))
    return bytes(body)


def changing(name: str, draw: random.Random) -> Callable[[Path], None]:
    """Damage to the bytes of one file."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(scrambled(path.read_bytes(), draw))

    return damage


def tables(kind: str, draw: random.Random) -> Case:
    """A table of text, whole or packed."""
    name = draw.choice(("pairs.csv", "items.csv"))
    return Case(kind, (*SVI, *TABLES), changing(name, draw))


def parquet(kind: str, draw: random.Random) -> Case:
    """A Parquet file with changed bytes."""
    name = draw.choice(("pairs.parquet", "items.parquet"))
    return Case(kind, (*SVI, "--data", "pairs.parquet", "--items", "items.parquet"), changing(name, draw))


def types(kind: str, draw: random.Random) -> Case:
    """A Parquet file whose columns are of other types."""

    def damage(folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.ParquetFile(folder / "pairs.parquet", pre_buffer=False).read(use_threads=False)
        column = draw.choice(table.column_names)
        n = table.num_rows
        made = draw.choice(
            (
                lambda: pa.array([draw.randrange(2**62) for _ in range(n)], pa.duration("s")),
                lambda: pa.array([draw.randrange(-(2**62), 2**62) for _ in range(n)], pa.timestamp("us", "UTC")),
                lambda: pa.array([[1, 2]] * n),
                lambda: pa.array([{"a": 1}] * n),
                lambda: pa.array([b"\xff"] * n),
                lambda: pa.array([None] * n),
                lambda: pa.array(["x"] * n).dictionary_encode(),
                lambda: pa.array([float("nan")] * n),
                lambda: pa.array([2**64 - 1] * n, pa.uint64()),
                lambda: pa.array([True] * n),
                lambda: pa.array(range(n), pa.date32()),
                lambda: pa.array(range(n), pa.time64("us")),
                lambda: pa.array([f"u{j % 3}" for j in range(n)], pa.large_string()),
                lambda: pa.array([1] * n, pa.decimal128(30, 2)),
            )
        )()
        table = table.set_column(table.column_names.index(column), column, made)
        pq.write_table(table, folder / "pairs.parquet")

    return Case(kind, (*SVI, "--data", "pairs.parquet", "--items", "items.csv"), damage)


def arrays(kind: str, draw: random.Random) -> Case:
    """``.npy`` and ``.npz``: changed bytes, headers that lie, archives that swell."""
    name = draw.choice(("v.npy", "v.npz"))

    def damage(folder: Path) -> None:
        path = folder / name
        if draw.random() < 0.5:
            path.write_bytes(scrambled(path.read_bytes(), draw))
            return
        shape = draw.choice(
            ("()", "(-9, -4)", "(9, 0)", "(9, 100000000)", "(9,)", "(9, 2, 2, 2, 2)", "(2**62, 9)", "9")
        )
        descr = draw.choice(("<f4", "|O", "<U9999999", "<c16", "<M8[s]", "<f2", "V8", "nonsense"))
        text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"
        raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(144)
        if name == "v.npy":
            path.write_bytes(raw)
            return
        ids = io.BytesIO()
        np.save(ids, np.array([f"i{j}" for j in range(9)]))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("ids.npy", ids.getvalue())
            archive.writestr("values.npy", raw + bytes(draw.choice((0, 2**20, 2**28))))

    return Case(kind, (*SVI, *TABLES, "--contents", f"v={name}"), damage)


def yaml_files(kind: str, draw: random.Random) -> Case:
    """A file of options."""

    def damage(folder: Path) -> None:
        path = folder / "options.yaml"
        odd = (
            "seed: " + draw.choice(NUMBERS),
            "a: &a [x,x]\nb: &b [*a,*a,*a]\nhidden: [*b,*b,*b]",
            "hidden: " + "[" * draw.choice((30, 3000)),
            "hidden: &h [*h]",
            "data: 2020-13-45",
            "seed: !!int abc",
            "!!python/object/apply:os.system ['true']",
            "? {a: 1}\n: 3",
            "content_likelihood_args: " + draw.choice(("7", "{rate: {a: 1}}", "[1]", "{1: 2}", "{? [a] : 1}")),
            f"{draw.choice(KEYS)}: {draw.choice(ODD_YAML)}",
        )
        path.write_text(draw.choice(odd) + "\n", errors="replace")
        if draw.random() < 0.4:
            path.write_bytes(scrambled(path.read_bytes(), draw))

    return Case(kind, (*SVI, *TABLES, "--config", "options.yaml"), damage)


def folders(kind: str, draw: random.Random) -> Case:
    """RecBole's and CiteULike's files."""
    name = draw.choice(("atomic/d.inter", "atomic/d.item", "cite/users.dat", "cite/mult.dat", "cite/vocabulary.dat"))
    return Case(kind, (*SVI, "--train-per-user", "1", "--data", name.partition("/")[0]), changing(name, draw))


def pictures(kind: str, draw: random.Random) -> Case:
    """Images, some of which unpack to very many pixels."""

    def damage(folder: Path) -> None:
        from PIL import Image

        path = folder / f"pictures/i{draw.choice(('1.png', '2.jpg'))}"
        if draw.random() < 0.2:
            Image.new("1", (draw.choice((1, 20000)), draw.choice((8, 12000)))).save(path)
        else:
            path.write_bytes(scrambled(path.read_bytes(), draw))

    return Case(kind, (*SVI, *TABLES, "--contents", "p=pictures"), damage)


def rewrite_manifest(run: Path) -> None:
    """Make the manifest right again, as a stranger would."""
    path = run / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in manifest["files"]:
        raw = (run / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    path.write_text(json.dumps(manifest, indent=1) + "\n")


def run_files(kind: str, draw: random.Random) -> Case:
    """A run folder with changed bytes in one file and a manifest that is right."""

    def damage(folder: Path) -> None:
        names = sorted(path for path in (folder / "run").rglob("*") if path.is_file() and path.name != "manifest.json")
        path = draw.choice(names)
        path.write_bytes(scrambled(path.read_bytes(), draw))
        if draw.random() < 0.9:
            rewrite_manifest(folder / "run")

    return Case(kind, draw.choice(ON_RUNS), damage)


def run_json(kind: str, draw: random.Random) -> Case:
    """A run folder in whose JSON a value is of another kind, or missing, and a manifest that is right."""

    def damage(folder: Path) -> None:
        names = ["config.json", "metrics.json", "data/dataset/dataset.json", "data/split/split.json", "manifest.json"]
        path = folder / "run" / draw.choice(names)
        value = json.loads(path.read_text())
        spots: list[tuple[Any, Any]] = []

        def walk(part: Any) -> None:
            for key in list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
                spots.append((part, key))
                walk(part[key])

        walk(value)
        for _ in range(draw.randint(1, 3)):
            part, key = draw.choice(spots)
            if draw.random() < 0.3 and isinstance(part, dict):
                part.pop(key, None)
            elif key in part if isinstance(part, dict) else key < len(part):
                part[key] = draw.choice(ODD_JSON)
        text = json.dumps(value, indent=1) + "\n"
        if draw.random() < 0.1:
            text = '{"schema": ' + "[" * 100_000
        path.write_text(text)
        if path.name != "manifest.json":
            rewrite_manifest(folder / "run")

    return Case(kind, draw.choice(ON_RUNS), damage)


def tensors(kind: str, draw: random.Random) -> Case:
    """A run folder whose tensors have other names, shapes, types or values."""

    def damage(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        path = folder / "run" / draw.choice(("posterior.safetensors", "data/dataset/content.safetensors"))
        found = load_file(path)
        name = draw.choice(sorted(found))
        array = found[name]
        how = draw.randrange(7)
        if how == 0:
            del found[name]
        elif how == 1:
            found[name] = array[:-1] if array.ndim else array[None]
        elif how == 2:
            found[name] = array.astype(draw.choice(("int8", "float16", "uint64", "bool")))
        elif how == 3:
            found[name] = np.full_like(array, draw.choice((0, 1, 127)))
        elif how == 4 and array.dtype.kind == "f":
            found[name] = np.full_like(array, draw.choice((np.nan, np.inf, -1e38)))
        elif how == 5:
            found[name] = np.ascontiguousarray(array.T) if array.ndim > 1 else array.reshape(-1, 1)
        else:
            found[draw.choice(("extra", "u_loc", "network.x"))] = np.zeros((3, 3), np.float32)
        save_file(found, path)
        rewrite_manifest(folder / "run")

    return Case(kind, draw.choice(ON_RUNS), damage)


def checkpoints(kind: str, draw: random.Random) -> Case:
    """An unfinished run with a damaged file."""

    def damage(folder: Path) -> None:
        path = draw.choice(sorted(path for path in (folder / "half.partial").rglob("*") if path.is_file()))
        path.write_bytes(scrambled(path.read_bytes(), draw))

    argv = ("inference.svi", *SMALL, "--epochs", "2", "--train-per-user", "2", *TABLES, "--out", "half", "--resume")
    return Case(kind, (*argv, "--quiet", "--checkpoint-seconds", "0"), damage)


def storages(kind: str, draw: random.Random) -> Case:
    """The file of a search's trials: bits, and rows that are no trials."""

    def damage(folder: Path) -> None:
        path = folder / "best.db"
        if draw.random() < 0.6:
            path.write_bytes(scrambled(path.read_bytes(), draw))
            return
        with closing(sqlite3.connect(path)) as connection, connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            table = draw.choice(sorted(row[0] for row in rows))
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            value = draw.choice((None, -1, 2**60, "x", "{", "[]", 1e308, b"\xff", "COMPLETE", "MINIMIZE"))
            try:
                connection.execute(f"UPDATE {table} SET {draw.choice(columns)} = ?", (value,))
            except sqlite3.Error:
                connection.execute(f"DELETE FROM {table}")

    return Case(kind, (*TUNE, "--trials", "3"), damage)


def places(kind: str, draw: random.Random) -> Case:
    """What is no regular file in the place of one; outputs where none can be."""
    flags = {
        "--data": (*SVI, "--items", "items.csv"),
        "--items": (*SVI, "--data", "pairs.csv"),
        "--config": (*SVI, *TABLES),
        "--train-file": (*SVI, *TABLES),
        "--storage": TUNE,
        "--users-from": ("inference.recommend", "run"),
        "--history": ("inference.recommend", "run"),
        "--new-items": ("inference.recommend", "run", "--user", "u1"),
        "--candidates": ("inference.recommend", "run", "--user", "u1"),
        "--pairs": ("analysis.posterior", "run", "--out", "draws.nc", "--draws", "10"),
        "--out": (*SVI[:-4], "--quiet", *TABLES),
        "--per-user": ("inference.evaluate", "run"),
    }
    flag = draw.choice(sorted(flags))
    name = draw.choice(("odd.csv", "odd.parquet", "odd", "odd.yaml", "odd.npy"))
    what = draw.choice(("pipe", "socket", "loop", "folder", "gone", "device", "empty", "other"))

    def damage(folder: Path) -> None:
        path = folder / name
        if what == "pipe":
            os.mkfifo(path)
        elif what == "socket":
            os.chdir(folder)
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(name)
        elif what == "loop":
            path.symlink_to(name)
        elif what == "folder":
            path.mkdir()
        elif what == "gone":
            path.symlink_to("nowhere")
        elif what == "device":
            path.symlink_to(draw.choice(("/dev/zero", "/dev/full", "/dev/null", "/dev/stdin")))
        elif what == "empty":
            path.touch()
        else:
            path.write_bytes(draw.randbytes(draw.choice((1, 100, 5000))))

    return Case(kind, (*flags[flag], flag, name), damage)


def options(kind: str, draw: random.Random) -> Case:
    """One to three options of a command with values that are odd or out of all reason."""
    base = draw.choice((*ON_RUNS, (*SVI, *TABLES), TUNE, BANDIT, ("inference.coordinate", *SVI[1:], *TABLES), MCMC))
    named = list(_options(base[0]))
    more: list[str] = []
    for field, hint in draw.sample(named, min(len(named), draw.randint(1, 3))):
        flag = "--" + field.replace("_", "-")
        hints = {hint, *get_args(hint)}
        if bool in hints:
            more += [draw.choice((flag, flag + "=maybe"))]
        elif {int, float} & hints or any({int, float} & set(get_args(one)) for one in hints):
            more += [
                flag,
                draw.choice((*NUMBERS, "1000000000", "1000000000000", "-1000000000000", "18446744073709551616")),
            ]
        else:
            more += [flag, draw.choice((*TEXTS, *NUMBERS))]
    return Case(kind, (*base, *more), lambda folder: None)


def _options(module: str) -> list[tuple[str, Any]]:
    """Fields of all dataclasses of options of a command, with their types."""
    from inference.options import METHODS, Options

    method = module.rpartition(".")[2]
    if method in METHODS or method == "tune":
        classes: list[Any] = list(Options.classes(method if method in METHODS else "coordinate"))
    else:
        found = vars(importlib.import_module(module)).values()
        classes = [one for one in found if isinstance(one, type) and one.__name__.endswith("Options")]
        classes = [one for one in classes if one.__module__ == module]
    hints = [(field.name, get_type_hints(one)[field.name]) for one in classes for field in fields(one)]
    return [(name, hint) for name, hint in hints if name not in ("run", "runs", "device")]


KINDS: dict[str, Callable[[str, random.Random], Case]] = {
    "text tables": tables,
    "parquet bytes": parquet,
    "parquet types": types,
    "arrays": arrays,
    "yaml": yaml_files,
    "folders of data": folders,
    "pictures": pictures,
    "run: bytes": run_files,
    "run: json": run_json,
    "run: tensors": tensors,
    "checkpoints": checkpoints,
    "storages": storages,
    "places": places,
    "options": options,
}
"""By kind, what makes a case of it."""

if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
