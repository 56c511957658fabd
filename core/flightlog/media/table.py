"""Tables: rows of numbers, texts and media, kept as one JSON file that names the media's files (docs/media.md)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import MissingDependency, UsageError
from ..journal.values import Unloggable, key_text, plain, text
from ..terminal import warn_once
from .arrays import check_items
from .base import Entry, KeyFolder, Media, as_fault
from .recognise import is_media, maker
from .table_file import Row, column_type, table_json, with_entries

MAX_ROWS = 200_000
MAX_COLUMNS = 10_000
MAX_CELLS = 20_000_000
MAX_NAME = 1000
_DEFAULT_COLUMNS = ("Input", "Output", "Expected")


class Table(Media):
    """A table for `log()`.

    Args:
        columns: the names of the columns; without them "Input", "Output", "Expected", or a DataFrame's own.
        data: the rows, a list or generator of sequences of as many cells; a numpy array of two axes; or a DataFrame.
        rows: the same as `data`, an older name.
        dataframe: a pandas or polars DataFrame; the index of a pandas one is not kept.
        dtype, optional, allow_mixed_types, log_mode: taken so that scripts written for wandb run. Columns take any
            mixture of values, and every `log()` keeps the table as it stands then.

    Cells are numbers, texts, booleans, None, lists and mappings of these, dates, media (Image, Audio, Video, Html,
    Text, Plotly, Plot, Histogram), and figures and PIL images, which become media. What else there is, is kept as its
    text, with one warning. A row is captured as it is added. A table has at most 200,000 rows, 20 million cells and
    20,000 media, and its file 256 MiB; beyond that its key is left out at `log()`, with a warning: log a file as an
    artifact.

    The rows are encoded at `log()`, which keeps a snapshot: rows added later reach the next one only.
    """

    kind = "table"

    def __init__(
        self,
        columns: Sequence[Any] | None = None,
        data: Any = None,
        rows: Any = None,
        dataframe: Any = None,
        dtype: Any = None,
        optional: Any = True,
        allow_mixed_types: bool = False,
        log_mode: str | None = None,
    ) -> None:
        self._columns: list[str] = []
        self._rows: list[Row] = []
        self._left_out = 0
        self._fault: Exception | None = None
        try:
            self._fill(columns, data if data is not None else rows, dataframe)
        except Exception as error:  # whatever a DataFrame's or array's own code raises
            self._fault = as_fault(error, "Table")

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._columns)

    @property
    def data(self) -> list[Row]:
        """The rows as they were captured."""
        return [list(row) for row in self._rows]

    def add_data(self, *data: Any) -> None:
        """Add a row. One that has not a cell for each column is left out, with a warning."""
        if len(data) != len(self._columns):
            self._leave_out(f"a row of {len(data)} cells in a table of {len(self._columns)} columns")
        elif len(self._rows) >= self._most_rows():
            self._refuse(f"Table(): more than {self._most_rows():,} rows; log a file as an artifact")
        else:
            self._rows.append([self._cell(value, at) for at, value in enumerate(data)])

    def add_row(self, *row: Any) -> None:
        """Add a row, as `add_data` does."""
        self.add_data(*row)

    def add_column(self, name: Any, data: Iterable[Any], optional: bool = False) -> None:
        """Add a column, one cell for each row. One of another length, or that is no list, is left out, with a warning.

        Args:
            name: its name.
            data: its cells; in a table without columns they make the rows.
            optional: taken so that scripts written for wandb run.
        """
        try:
            values = _as_list(data)
        except Exception as error:  # whatever an array's own code raises
            self._leave_out(f"a column that is no list ({type(error).__name__}: {key_text(error)[:200]})")
            return
        if self._columns and len(values) != len(self._rows):
            self._leave_out(f"a column of {len(values)} cells in a table of {len(self._rows)} rows")
            return
        if not self._columns:
            self._rows = [[] for _ in values[: MAX_ROWS + 1]]
        self._columns.append(_name(name))
        at = len(self._columns) - 1
        for row, value in zip(self._rows, values, strict=False):
            row.append(self._cell(value, at))
        self._check_shape()

    def get_column(self, name: Any, convert_to: str | None = None) -> Any:
        """Return a column's cells as a list, or as a numpy array with `convert_to="numpy"`.

        Raises:
            UsageError: there is no such column.
        """
        at = self.get_index(name)
        values = [row[at] for row in self._rows]
        if convert_to != "numpy":
            return values
        import numpy as np

        return np.array(values)

    def get_index(self, name: Any) -> int:
        """Return a column's place, from 0. Raises UsageError where there is none of this name."""
        try:
            return self._columns.index(_name(name))
        except ValueError:
            known = ", ".join(repr(column) for column in self._columns[:20])
            raise UsageError(f"the table has no column {name!r}; it has {known}") from None

    def get_dataframe(self) -> Any:
        """Return the table as a pandas DataFrame. Raises MissingDependency."""
        try:
            import pandas
        except ImportError:
            raise MissingDependency("Table.get_dataframe() needs pandas: pip install pandas") from None
        return pandas.DataFrame(self.data, columns=self._columns)

    def iterrows(self) -> Iterator[tuple[int, Row]]:
        """Yield the rows, each with its number from 0."""
        yield from enumerate(self.data)

    def __len__(self) -> int:
        return len(self._rows)

    def write(self, folder: KeyFolder) -> Entry:
        if self._fault is not None:
            raise self._fault
        if id(self) in folder.above:
            raise UsageError("Table(): it holds itself, in a cell")
        rows = list(self._rows)
        if any(len(row) != len(self._columns) for row in rows):
            raise UsageError("Table(): a column was added while it was logged")
        types = [column_type(row[at] for row in rows) for at in range(len(self._columns))]
        content = table_json(self._columns, types, with_entries(rows, types, folder.for_parts(self)))
        facts = {"rows": len(rows), "columns": len(self._columns)}
        if self._left_out:
            facts["left_out"] = self._left_out
        return {"type": self.kind, **folder.put(content, ".table.json"), **facts}

    # -- filling it ----------------------------------------------------------------------------------------------------

    def _fill(self, columns: Sequence[Any] | None, data: Any, dataframe: Any) -> None:
        frame = dataframe if dataframe is not None else data if _is_frame(data) else None
        if frame is not None:
            self._fill_from_frame(frame, columns)
            return
        rows = _as_rows(data)
        if columns is None:
            columns = _DEFAULT_COLUMNS if not rows or len(rows[0]) == 3 else [str(i) for i in range(len(rows[0]))]
        self._columns = _names(columns)
        self._check_shape()
        check_items(rows, self._most_rows(), "Table()")
        for row in rows:
            self.add_data(*row)

    def _fill_from_frame(self, frame: Any, columns: Sequence[Any] | None) -> None:
        if not _is_frame(frame):
            raise UsageError(f"Table(dataframe=): a pandas or polars DataFrame is needed, not {type(frame).__name__}")
        height, width = frame.shape
        if height > MAX_ROWS or width > MAX_COLUMNS or height * width > MAX_CELLS:
            raise UsageError(f"Table(): a DataFrame of {height:,} x {width:,} cells; log a file as an artifact")
        wanted = None if columns is None else set(_names(columns))
        picked = [(at, _name(name)) for at, name in enumerate(frame.columns) if wanted is None or _name(name) in wanted]
        self._columns = [name for _, name in picked]
        cells = [[self._cell(value, at) for value in _frame_column(frame, of)] for at, (of, _) in enumerate(picked)]
        self._rows = [list(row) for row in zip(*cells, strict=True)]

    def _cell(self, value: Any, at: int) -> Any:
        """Return a value as a cell: plain, or media."""
        kind = type(value)
        if kind is float or kind is bool or value is None:
            return value
        if kind is str:
            return value if value.isascii() else text(value)
        if is_media(value):
            return value
        make = maker(kind)
        if make is not None and not _is_frame(value):
            return make(value)
        if kind.__name__ in ("NAType", "NaTType"):  # pandas' words for what is missing
            return None
        try:
            return _sound(plain(value))
        except Exception as error:  # Unloggable, or whatever the value's own code raises
            why = str(error) if isinstance(error, Unloggable) else f"{type(error).__name__}: {error}"[:200]
            warn_once(
                f"table cell {self._columns[at]}",
                f"Table(): in column {self._columns[at]!r} a {kind.__name__} is kept as its text: {why}.",
            )
            return key_text(value)[:MAX_NAME]

    def _leave_out(self, what: str) -> None:
        self._left_out += 1
        if self._fault is None:
            warn_once(f"table {self._columns[:20]}", f"Table(): {what} is left out.")

    def _refuse(self, why: str) -> None:
        if self._fault is None:
            self._fault = UsageError(why)

    def _most_rows(self) -> int:
        return min(MAX_ROWS, MAX_CELLS // max(1, len(self._columns)))

    def _check_shape(self) -> None:
        if len(self._columns) > MAX_COLUMNS:
            self._refuse(f"Table(): more than {MAX_COLUMNS:,} columns")
        elif len(self._rows) > self._most_rows():
            self._refuse(f"Table(): more than {self._most_rows():,} rows; log a file as an artifact")


def _name(name: Any) -> str:
    return key_text(name)[:MAX_NAME]


def _names(names: Iterable[Any]) -> list[str]:
    """Return the names of columns; of too many, an endless generator's too, one too many."""
    return [_name(name) for name in itertools.islice(names, MAX_COLUMNS + 1)]


def _sound(value: Any) -> Any:
    """Return a plain value whose texts are all UTF-8."""
    if type(value) is str:
        return text(value)
    if type(value) is list:
        return [_sound(item) for item in value]
    if type(value) is dict:
        return {text(key): _sound(item) for key, item in value.items()}
    return value


def _as_rows(data: Any) -> list[Any]:
    """Return rows as a list of sequences."""
    rows = [] if data is None else _as_list(data)
    if not all(isinstance(row, list | tuple) for row in rows[: MAX_ROWS + 1]):
        rows = [row if isinstance(row, list | tuple) else _as_list(row) for row in rows[: MAX_ROWS + 1]]
    return rows


def _as_list(data: Any) -> list[Any]:
    """Return a list, array, tensor, Series, generator or other iterable as a list.

    Raises:
        UsageError: it is none.
    """
    check_items(data, MAX_CELLS, "Table()")
    if isinstance(data, list | tuple):
        return list(data)
    for method in ("tolist", "to_list"):
        if callable(getattr(data, method, None)):
            found = getattr(data, method)()
            if isinstance(found, list):
                return found
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | Mapping):
        return list(itertools.islice(data, MAX_ROWS + 1))  # one more than there may be; a generator may have no end
    raise UsageError(f"Table(): {type(data).__name__} is no list of rows or cells")


def _is_frame(data: Any) -> bool:
    return any(
        base.__name__ == "DataFrame" and base.__module__.partition(".")[0] in ("pandas", "polars")
        for base in type(data).__mro__
    )


def _frame_column(frame: Any, at: int) -> list[Any]:
    """Return a DataFrame's column by its place, since names may repeat; what is missing in it is None."""
    if not hasattr(frame, "iloc"):
        return list(frame.to_series(at).to_list())
    column = frame.iloc[:, at]
    values = list(column.tolist())
    if column.dtype.kind == "f":  # only there pandas means a number by NaN
        return values
    return [None if type(value) is float and value != value else value for value in values]
