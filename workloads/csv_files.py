"""CSV files as spreadsheets and people write them: any usual delimiter and encoding, named columns, numbered lines."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import os
import stat
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workloads.datasets import DataError

_MARKS: Mapping[bytes, str] = {
    codecs.BOM_UTF8: "utf-8-sig",
    # Before those of UTF-16, as one of them begins with one of those.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""What a text begins with -> the encoding it gives away."""
_DELIMITERS = ",;\t|"
"""The one most often in the first line is the file's: spreadsheets write `;` where a comma begins decimals."""
_GIVE = "give a CSV of file names and labels"
_SAVE_AS = "save it as CSV in UTF-8 (spreadsheets call that CSV UTF-8)"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a CSV."""

    number: int
    """Counted from 1, the first line of the file; of its last line if a quoted cell goes over several."""
    cells: Mapping[str, str]
    """Column -> cell, without spaces around it."""
    surplus: bool
    """Whether there are more cells than columns."""


def read_rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> tuple[set[str], list[Row]]:
    """Returns the known columns that a CSV has, and its rows; those with nothing in them are left out.

    Args:
        path: The CSV. Its first line names the columns, in small or capital letters.
        required: Columns it must have.
        optional: Columns it may have. Others are let be, unless they look like one of these written wrong.

    Raises:
        DataError: It cannot be read as a table, or the columns are not there.
    """
    text = _text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        # The line of a row is known only while it is the last that was read.
        numbered = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(
            f"{path} cannot be read as CSV: {error} (line {reader.line_num}); is a quotation mark not closed?"
        ) from None
    if not numbered:
        raise DataError(f"{path} is empty; {_wanted(required, optional)}")
    (_, header), *rest = numbered
    columns = [bare(cell).casefold() for cell in header]
    _check_columns(path, columns, required, optional)
    known = {column for column in columns if column in (*required, *optional)}
    rows = [
        Row(
            number=number,
            cells={column: cell.strip() for column, cell in zip(columns, row, strict=False)},
            surplus=any(cell.strip() for cell in row[len(columns) :]),
        )
        for number, row in rest
    ]
    return known, rows


def bare(text: str) -> str:
    """Returns what a reader sees of a text: composed letters, single spaces, nothing that has no width."""
    visible = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return " ".join(unicodedata.normalize("NFC", visible).split())


def shown(text: str) -> str:
    """Returns a text for a message of one line: as it is, or quoted where it holds what cannot be printed."""
    return text if text.isprintable() else repr(text)


def file_info(path: Path) -> os.stat_result:
    """Returns what the file system says of a CSV.

    Raises:
        DataError: It is not there, or not a file.
    """
    try:
        info = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {_GIVE}") from None
    except ValueError:
        raise DataError(f"{shown(str(path))} cannot be the name of a file; {_GIVE}") from None
    if not stat.S_ISREG(info.st_mode):
        raise DataError(f"{path} is {'a folder' if stat.S_ISDIR(info.st_mode) else 'not a file'}; {_GIVE}")
    return info


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {_GIVE}") from None
    encoding = next((encoding for mark, encoding in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = len((content[: error.start] + b".").splitlines())
        where = f"line {line} has the byte 0x{content[error.start]:02x}" if encoding == "utf-8" else error.reason
        raise DataError(f"{path} is not text in {encoding.upper()} ({where}); {_SAVE_AS}") from None
    if "\0" in text:
        raise DataError(f"{path} is not text in UTF-8 (it has bytes of zero); {_SAVE_AS}")
    return text


def _check_columns(path: Path, columns: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> None:
    wanted = _wanted(required, optional)
    if missing := [name for name in required if name not in columns]:
        given = ", ".join(map(shown, filter(None, columns)))
        raise DataError(f"{path} has no column {', '.join(missing)}; {wanted}, not {given}")
    for name in (*required, *optional):
        if columns.count(name) > 1:
            raise DataError(f"{path} has {columns.count(name)} columns {name}; {wanted}, each once")
        if name not in columns and (alike := difflib.get_close_matches(name, columns, n=1, cutoff=0.8)):
            raise DataError(f"{path} has a column {shown(alike[0])}; call it {name}, or something less like it")


def _wanted(required: Sequence[str], optional: Sequence[str]) -> str:
    return f"its first line must name the columns {' and '.join(required)}, and may name {' and '.join(optional)}"
