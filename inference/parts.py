"""Tables that are longer than memory, written into a file part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from inference.printing import csv_text
from pyro_cvae.whole import whole_file


@contextmanager
def parts_to(path: str | Path, safe: bool = False) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Gives what writes the next part of a table into a file as of :func:`inference.printing.write_frame`.

    One part is in memory at a time; all have the same columns, and there is one at least. The file appears at the end
    of the block, whole, or not at all. ``safe`` as in :func:`inference.printing.csv_text`.
    """
    with whole_file(path) as new:
        if Path(path).suffix == ".parquet":
            with closing(_Parquet(new)) as parts:
                yield parts.write
        else:
            yield _Csv(new, safe).write


class _Csv:
    """One header, then the rows of all parts."""

    def __init__(self, path: Path, safe: bool) -> None:
        self._path, self._safe, self._begun = path, safe, False

    def write(self, table: pd.DataFrame) -> None:
        """Write the next part."""
        with open(self._path, "a" if self._begun else "w", encoding="utf-8", newline="") as file:
            file.write(csv_text(table, self._safe, header=not self._begun))
        self._begun = True


class _Parquet:
    """A group of rows for each part; columns are of the first part's types, those without a value there texts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pd.DataFrame) -> None:
        """Write the next part."""
        if self._writer is None:
            fields = pa.Schema.from_pandas(table, preserve_index=False)
            texts = [one.with_type(pa.string()) if pa.types.is_null(one.type) else one for one in fields]
            self._writer = pq.ParquetWriter(self._path, pa.schema(texts, fields.metadata))
        own = pa.Table.from_pandas(table, schema=self._writer.schema, preserve_index=False, nthreads=1)
        self._writer.write_table(own)

    def close(self) -> None:
        """Write the end of the file."""
        if self._writer is not None:
            self._writer.close()
