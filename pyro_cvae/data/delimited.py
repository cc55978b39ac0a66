"""Text tables: compressed or not, in any encoding, with any separator; each repair is counted in a line of the log."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from pyro_cvae import limits
from pyro_cvae.data import files
from pyro_cvae.data.reading import COLUMNS, Reading
from pyro_cvae.data.table import Table, key_of, listed, log
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

ENDINGS = (".csv", ".tsv", ".tab", ".txt", ".dat", ".psv")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = (
    (b"PAR1", "is a Parquet file", "let its name end in .parquet"),
    (b"ARROW1", "is a Feather file", "write it again as Parquet or CSV"),
    (b"PK\x03\x04", "is a zip archive or a workbook", "take the table out of it, as CSV or Parquet"),
    (b"\xd0\xcf\x11\xe0", "is a workbook", "save the table as CSV or Parquet"),
    (b"\x1f\x8b", "is packed by gzip", "let its name end in .csv.gz"),
    (b"BZh", "is packed by bzip2", "let its name end in .csv.bz2"),
    (b"\xfd7zXZ", "is packed by xz", "let its name end in .csv.xz"),
    (b"\x28\xb5\x2f\xfd", "is packed by zstandard", "let its name end in .csv.zst"),
)
_SEPARATOR_LINE = re.compile("sep=(.)\r?\n").match
_SEPARATORS = (",", ";", "\t", "|")
_LARGEST_CELL = 2**31 - 1
_FREE_BYTES, _LARGEST_RATIO = 2**28, 200  # a file that swells more than 200 times is no table
_NOT_UTF8 = "is not valid UTF-8"
_UNIT = "\x1f"  # stands for a separator of several characters, which the csv module does not take


def ending_of(path: Path) -> tuple[str, str]:
    """The ending of a table's name, and that of its compression or nothing, both in small letters."""
    last = path.suffix.lower()
    return (Path(path.stem).suffix.lower(), last) if last in COMPRESSED else (last, "")


def read_delimited(path: Path, reading: Reading) -> Table:
    """The table in a text file with a header; InputError, with the line, for what cannot be mended."""
    raw = files.read_bytes(path)
    _, compression = ending_of(path)
    if compression:
        raw = decompressed(raw, path, compression)
    what, needed = f"a table of {limits.in_words(len(raw))}", 6 * len(raw) + 400 * raw.count(b"\n")
    limits.check_memory(needed, what, "use a smaller table, for instance as Parquet")
    try:
        text = decoded(raw, path, reading.encoding)
    except InputError as error:
        raise _with_columns(error, raw, reading) from None
    named = _SEPARATOR_LINE(text)
    if named is not None:  # Excel's own way to name the separator; the lines keep their numbers
        text = "\n" + text[named.end() :]
    separator = reading.separator or (named[1] if named else separator_of(text, reading))
    if len(separator) > 1:
        text = text.replace(separator, _UNIT)
    try:
        header, rows, lines = _rows(text, path, separator if len(separator) == 1 else _UNIT)
    except InputError:
        if separator != "\t":
            raise
        header, rows, lines = _rows(text, path, separator, csv.QUOTE_NONE)  # tabs are rarely quoted
        log.warning("%s: quotes are read as they stand, since they do not come in pairs", path)
    names = [name.strip() for name in header]
    counts = Counter(names)
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    of_names = dict(zip(reversed(names), reversed(columns), strict=True))
    if counts[""]:
        of_names.pop("")
        log.warning("%s: %s without a name left out", path, counted(counts[""], "column"))
    repeated = frozenset(name for name, count in counts.items() if count > 1)
    in_order = {name: of_names[name] for name in names if name}
    return Table(in_order, path=path, lines=lines, typed=False, reading=reading, repeated=repeated)


def _rows(
    text: str, path: Path, separator: str, quoting: Any = csv.QUOTE_MINIMAL
) -> tuple[list[str], list[list[str]], list[int]]:
    """The header, the rows and the line where each begins; what is no row is left out and counted."""
    limit = csv.field_size_limit(_LARGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, quoting=quoting)
    header: list[str] | None = None
    rows: list[list[str]] = []
    lines: list[int] = []
    odd: Counter[tuple[str, str]] = Counter()
    line = 1
    try:
        for row in reader:
            if not "".join(row).strip():
                odd["row", "without any value left out"] += len(row) > 1
            elif header is None:
                header = row
            elif row == header:
                odd["line", "like the header left out"] += 1
            else:
                n = len(header)
                if len(row) > n and not any(row[n:]):
                    odd["row", "cut by separators at the end"] += 1
                    row = row[:n]
                if len(row) != n:
                    problem = f"has {counted(len(row), 'value')}, the header {n}"
                    name = {"\t": "a tab", _UNIT: "the separator"}.get(separator, repr(separator))
                    raise InputError(problem, f"quote values that hold {name}", path=path, line=line)
                rows.append(row)
                lines.append(line)
            line = reader.line_num + 1  # quoted values may hold line ends: a row starts after the last one's end
    except csv.Error as error:
        reason = str(error).replace("\x1f", "the separator")
        problem, remedy = f"is not valid CSV ({reason})", 'double quotes within quoted values ("")'
        raise InputError(problem, remedy, path=path, line=line) from None
    finally:
        csv.field_size_limit(limit)
    if header is None:
        raise InputError("the file is empty", "restore it from its source", path=path)
    for (noun, what), n in odd.items():
        if n:
            log.warning("%s: %s %s", path, counted(n, noun), what)
    return header, rows, lines


def read_lines(path: str | Path, encoding: str = "") -> list[str]:
    """The lines of a text file of any encoding and line ends; InputError where it is empty or cannot be read."""
    path = Path(path)
    raw = files.read_bytes(path)
    if compression := ending_of(path)[1]:
        raw = decompressed(raw, path, compression)
    return re.split(r"\r\n|\r|\n", decoded(raw, path, encoding))


def read_ids(path: str, encoding: str = "") -> list[str]:
    """Ids of a file, one a line; empty lines are skipped. Raises InputError if there is none."""
    ids = [line.strip() for line in read_lines(path, encoding) if line.strip()]
    if not ids:
        raise InputError("holds no id", "write one id a line", path=path)
    return ids


def separator_of(text: str, reading: Reading) -> str:
    """The separator of a text with a header: the one by which most known names stand in the header, then most names."""
    known = {key_of(name) for name in (*COLUMNS, "user_id", "item_id", "timestamp", *reading.columns.values())}

    def worth(separator: str) -> tuple[int, int]:
        lines = io.StringIO(text, newline="")
        limit = csv.field_size_limit(_LARGEST_CELL)
        try:
            header = next((row for row in csv.reader(lines, delimiter=separator) if any(row)), [])
        except csv.Error:
            return 0, 0
        finally:
            csv.field_size_limit(limit)
        return sum(key_of(name) in known for name in header), len(header)

    return max(_SEPARATORS, key=worth)  # of equals the first: a comma


def decoded(raw: bytes, path: Path, encoding: str) -> str:
    """The text of a file, less its byte order mark and NUL bytes; InputError with the line for other encodings."""
    if not raw:
        raise InputError("the file is empty", "restore it from its source", path=path)
    binary = b"\0" in raw[:64] or not raw[:64].isascii()
    for begin, what, remedy in _NO_TEXT:
        if binary and raw.startswith(begin):
            raise InputError(f"{what} and no text", remedy, path=path)
    mark = next((name for mark, name in _MARKS if raw.startswith(mark)), "")
    name = encoding or mark or _unmarked(raw)
    if name.lower().replace("_", "-") in ("utf-8", "utf8"):
        name = "utf-8-sig"
    try:
        text = raw.decode(name)
    except UnicodeError as error:  # some codecs have no place to tell
        line = raw.count(b"\n", 0, getattr(error, "start", 0)) + 1
        if encoding or mark not in ("", "utf-8-sig"):
            problem, remedy = f"is not valid {encoding or mark}", "give the right --encoding, or restore the file"
            raise InputError(problem, remedy, path=path, line=line) from None
        text = _mended(raw, path, line)
    if "\0" in text:
        log.warning("%s: %d NUL characters were left out", path, text.count("\0"))
        text = text.replace("\0", "")
    return text


def _unmarked(raw: bytes) -> str:
    """UTF-16 where every other byte of the beginning is 0, else UTF-8."""
    begin = raw[:4096]
    n = max(1, len(begin) // 2)
    for at, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if begin[at::2].count(0) > 0.7 * n and begin[1 - at :: 2].count(0) < 0.1 * n:
            return name
    return "utf-8"


def _mended(raw: bytes, path: Path, line: int) -> str:
    """UTF-8 with a few wrong bytes, which become U+FFFD; InputError where most are wrong: it is another encoding."""
    text = raw.decode("utf-8-sig", errors="replace")
    wrong = text.count("\ufffd")
    right = len(text) - len(text.encode("ascii", "ignore")) - wrong
    if right < 5 * wrong:
        remedy = "name its encoding, for instance --encoding latin-1 (or cp1252, utf-16, gb18030, shift_jis)"
        raise InputError(_NOT_UTF8, remedy, path=path, line=line)
    told = counted(wrong, "undecodable character", "were")
    log.warning("%s: %s replaced (the first: line %d)", path, told, line)
    return text


def _with_columns(error: InputError, raw: bytes, reading: Reading) -> InputError:
    """The error on a table's encoding, which says too where no column can be the items', that every table has."""
    if error.problem != _NOT_UTF8:
        return error
    text = raw.removeprefix(codecs.BOM_UTF8).decode("ascii", errors="replace")
    named = _SEPARATOR_LINE(text)
    text = text if named is None else text[named.end() :]
    separator = reading.separator or (named[1] if named else separator_of(text, reading))
    names = [name.strip(' "') for name in text.lstrip("\r\n").splitlines()[0].split(separator)]
    if {key_of(name) for name in names} & {"item", "itemid", "id", key_of(reading.columns.get("item", "item"))}:
        return error
    problem = f"{error.problem}, and has no column item (its columns: {listed(names)})"
    return InputError(
        problem, f"{error.remedy}, and the column, --columns item=COLUMN", path=error.path, line=error.line
    )


def decompressed(raw: bytes, path: Path, compression: str) -> bytes:
    """The bytes of a compressed file; InputError where it is damaged, or swells out of all proportion."""
    most = max(_FREE_BYTES, _LARGEST_RATIO * len(raw))
    openers: dict[str, Callable[[IO[bytes]], Any]] = {
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".xz": lzma.open,
        ".zst": _zst,
    }
    parts, size = [], 0
    try:
        with openers[compression](io.BytesIO(raw)) as stream:
            while part := stream.read(2**20):
                parts.append(part)
                size += len(part)
                if size > most:
                    problem = f"holds more than {_LARGEST_RATIO} times its own size"
                    raise InputError(problem, "unpack it by hand, if it is no trap", path=path)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"is not a readable {compression} file ({reason})", "restore it", path=path) from None
    return b"".join(parts)


def _zst(stream: IO[bytes]) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")
