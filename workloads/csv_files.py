"""Reads CSV files with the usual delimiters and encodings, named columns and line numbers for error messages."""

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
    # Before UTF-16, as the mark of UTF-32-LE begins with that of UTF-16-LE.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte-order mark -> encoding."""
_DELIMITERS = ",;\t|"
"""The most frequent one in the first line is used; spreadsheets write `;` in locales with a decimal comma."""
_GIVE = "give a CSV of file names and labels"
_SAVE_AS = "save it as CSV in UTF-8 (spreadsheets call that CSV UTF-8)"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a CSV."""

    number: int
    """Its line number, counted from 1; that of the last line if a quoted cell spans several."""
    cells: Mapping[str, str]
    """Column -> cell, stripped."""
    surplus: bool
    """Whether there are more cells than columns."""


def read_rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> tuple[set[str], list[Row]]:
    """Returns which of the known columns a CSV has, and its non-empty rows.

    Args:
        path: The CSV. Its first line names the columns, case-insensitively.
        required: Columns it must have.
        optional: Columns it may have. Other columns are ignored unless they look like a misspelling of one of these.

    Raises:
        DataError: It cannot be read as a table, or columns are missing.
    """
    text = _text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        # reader.line_num is the line number of the row just read.
        numbered = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(
            f"{path} cannot be read as CSV: {error} (line {reader.line_num}); is a closing quotation mark missing?"
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
    """Normalises a text to what is visible: composed letters, single spaces, no zero-width characters."""
    visible = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return " ".join(unicodedata.normalize("NFC", visible).split())


def shown(text: str) -> str:
    """Returns a text for a one-line message: unchanged if printable, else its repr."""
    return text if text.isprintable() else repr(text)


def file_info(path: Path) -> os.stat_result:
    """Returns the file system's information about a CSV.

    Raises:
        DataError: It does not exist or is not a file.
    """
    try:
        info = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {_GIVE}") from None
    except ValueError:
        raise DataError(f"{shown(str(path))} is not a valid file name; {_GIVE}") from None
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
        raise DataError(f"{path} is not text in UTF-8 (it contains zero bytes); {_SAVE_AS}")
    return text


def _check_columns(path: Path, columns: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> None:
    wanted = _wanted(required, optional)
    if missing := [name for name in required if name not in columns]:
        given = ", ".join(map(shown, filter(None, columns)))
        raise DataError(f"{path} has no column {', '.join(missing)}; {wanted}, not {given}")
    for name in (*required, *optional):
        if columns.count(name) > 1:
            raise DataError(f"{path} has {columns.count(name)} columns named {name}; {wanted}, each once")
        if name not in columns and (alike := difflib.get_close_matches(name, columns, n=1, cutoff=0.8)):
            raise DataError(
                f"{path} has a column {shown(alike[0])}; if it is meant to be {name}, fix it, else rename it"
            )


def _wanted(required: Sequence[str], optional: Sequence[str]) -> str:
    return f"its first line must name the columns {' and '.join(required)}, and may name {' and '.join(optional)}"
