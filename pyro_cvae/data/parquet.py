"""Parquet files as columns: read by the calling thread alone, each column turned into values when it is asked for.

Arrow's own threads are not used on purpose. ``pyarrow.parquet.read_table`` returns before its worker threads have let
go of the file; what it reads from is a Python object, so a worker that is still behind when the program ends waits for
the interpreter's lock in a C++ destructor, is ended there, and takes the process down with it: "terminate called
without an active exception", exit code 134 in place of the command's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pyro_cvae.data import gate
from pyro_cvae.errors import InputError

_REMEDY = "write it again"
_BYTES_OF_A_CELL = 64  # as a Python object in a list
_ROWS_AT_ONCE = 2**14


def read_parquet(path: gate.PathLike, remedy: str = _REMEDY) -> pa.Table:
    """The table in a Parquet file; InputError where it is damaged, or would unpack to what nobody's data do."""
    raw = gate.read_bytes(path)
    try:
        file = pq.ParquetFile(pa.BufferReader(raw), pre_buffer=False)
        n_rows, n_columns = file.metadata.num_rows, file.metadata.num_columns
        if n_rows < 0 or n_columns < 1:
            raise InputError("has no columns, or less than no rows", remedy, path=path)
        gate.check_unpacked(path, 8 * len(raw), n_rows * _BYTES_OF_A_CELL, remedy)
        batches, size = [], 0
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, use_threads=False):
            size += batch.nbytes
            gate.check_unpacked(path, 8 * len(raw), size, remedy)
            batches.append(batch)
        table = pa.Table.from_batches(batches, file.schema_arrow)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, MemoryError):
            raise
        raise InputError(f"is not a readable Parquet file ({_short(error)})", remedy, path=path) from None
    if len(set(table.column_names)) != len(table.column_names):
        raise InputError("has two columns of one name", "rename one of them", path=path)
    return table


class Columns(Mapping[str, list[Any]]):
    """Columns of an Arrow table as lists of Python's values, each made when it is asked for.

    Raises InputError, naming the column, for one whose values have no place in a table of ours (lists, durations,
    bytes that are no UTF-8).
    """

    def __init__(self, table: pa.Table, label: str, path: gate.PathLike | None = None) -> None:
        self._table, self._label, self._path = table, label, path

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self._table.column_names:
            raise KeyError(name)
        column = self._table.column(name)
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if not _readable(kind):
            raise self._error(f"the column {name} is of type {kind}", "make it numbers, text or times")
        try:
            return column.to_pylist()
        except (pa.ArrowException, ValueError, OverflowError, IndexError) as error:
            raise self._error(f"the column {name} cannot be read ({_short(error)})", _REMEDY) from None

    def __contains__(self, name: object) -> bool:
        return name in self._table.column_names  # without turning the column into values

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.column_names)

    def __len__(self) -> int:
        return self._table.num_columns

    def _error(self, problem: str, remedy: str) -> InputError:
        return InputError(problem if self._path else f"{self._label}: {problem}", remedy, path=self._path)


def _readable(kind: pa.DataType) -> bool:
    tests = ("integer", "floating", "boolean", "string", "large_string", "timestamp", "date", "decimal", "null")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in tests) or str(kind) == "string_view"


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 200 else text[:197] + "..."
