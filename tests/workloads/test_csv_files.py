"""CSV files as spreadsheets and people write them: tables of what is read, and of what is said of the rest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workloads.csv_files import bare, file_info, read_rows, shown
from workloads.datasets import DataError

TEXT = "file,label,split\nbär.png,cat,train\ndog.png,dog,val\n"
READ: dict[str, bytes] = {
    "plain": TEXT.encode(),
    "UTF-8 with a mark, as spreadsheets save it": TEXT.encode("utf-8-sig"),
    "UTF-16, as spreadsheets save Unicode text": TEXT.replace(",", "\t").encode("utf-16"),
    "UTF-16, the other end first": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "UTF-32": TEXT.encode("utf-32"),
    "semicolons": TEXT.replace(",", ";").encode(),
    "tabs": TEXT.replace(",", "\t").encode(),
    "bars": TEXT.replace(",", "|").encode(),
    "lines of Windows": TEXT.replace("\n", "\r\n").encode(),
    "lines of old Macs": TEXT.replace("\n", "\r").encode(),
    "no newline at the end": TEXT.rstrip().encode(),
    "spaces": TEXT.replace(",", " , ").encode(),
    "quotation marks": re.sub(r"[^,\n]+", r'"\g<0>"', TEXT).encode(),
    "capitals": TEXT.replace("file,label,split", "File,LABEL,Split").encode(),
    "a space of no width in the first line": TEXT.replace("label", "label\u200b").encode(),
    "columns in another order, and more of them": (
        b"split,width,label,file\ntrain,3,cat,b\xc3\xa4r.png\nval,4,dog,dog.png\n"
    ),
    "columns without names": TEXT.replace("\n", ",,\n").encode(),
    "nothing in the last lines": (TEXT + "\n,,\n , , \n").encode(),
}


@pytest.mark.parametrize("kind", READ)
def test_tables_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(READ[kind])
    columns, rows = read_rows(path, ("file", "label"), ("split",))
    assert columns == {"file", "label", "split"}
    assert [row.number for row in rows] == [2, 3]
    found = [tuple(row.cells[column] for column in ("file", "label", "split")) for row in rows]
    assert found == [("bär.png", "cat", "train"), ("dog.png", "dog", "val")]
    assert not any(row.surplus for row in rows)


WANTED = r"its first line must name the columns file and label, and may name split"
SAVE = r"; save it as CSV in UTF-8 \(spreadsheets call that CSV UTF-8\)"
REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", f"is empty; {WANTED}"),
    "blank lines": (b"\n \n,\n", f"is empty; {WANTED}"),
    "latin-1": (TEXT.encode("latin-1"), r"is not text in UTF-8 \(line 2 has the byte 0xe4\)" + SAVE),
    "UTF-16 without a mark": (TEXT.encode("utf-16-le"), r"is not text in UTF-8 \(.*\)" + SAVE),
    "the same, no accents": (b"f\0i\0l\0e\0,\0l\0\n\0", r"is not text in UTF-8 \(it contains zero bytes\)" + SAVE),
    "UTF-16 cut short": (TEXT.encode("utf-16")[:-1], r"is not text in UTF-16 \(truncated data\)" + SAVE),
    "a workbook": (b"PK\x03\x04\x14\0\xff\xd8", r"is not text in UTF-8 \(line 1 has the byte 0xff\)" + SAVE),
    "no names": (b"a.png,cat\nb.png,dog\n", f"has no column file, label; {WANTED}, not a.png, cat"),
    "one missing": (b"file,class\n", f"has no column label; {WANTED}, not file, class"),
    "another delimiter": (b"file/label\n", f"has no column file, label; {WANTED}, not file/label"),
    "twice": (b"file,label,Label\n", f"has 2 columns named label; {WANTED}, each once"),
    "misspelled": (b"file,label,spilt\n", "has a column spilt; if it is meant to be split, fix it, else rename it"),
    "a quotation mark left open": (
        b'file,label\n"a.png,cat\nb.png,dog\n',
        r"cannot be read as CSV: unexpected end of data \(line 3\); is a closing quotation mark missing\?",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_tables_refused(kind: str, tmp_path: Path) -> None:
    content, message = REFUSED[kind]
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))} {message}$"):
        read_rows(path, ("file", "label"), ("split",))


def test_cells_beyond_the_columns_and_cells_that_lack(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text('file,label\na,b.png,cat\n"a,b.png",cat\na.png\nb.png,cat,,\n')
    _, rows = read_rows(path, ("file", "label"), ())
    assert [row.surplus for row in rows] == [True, False, False, False]
    assert [row.cells for row in rows[1:3]] == [{"file": "a,b.png", "label": "cat"}, {"file": "a.png"}]


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    give = "; give a CSV of file names and labels$"
    for path, what in (
        (tmp_path / "gone.csv", "cannot be read: No such file or directory"),
        (tmp_path, "is a folder"),
        (Path("/dev/null"), "is not a file"),
        (Path("a\0b"), "is not a valid file name"),
    ):
        with pytest.raises(DataError, match=f" {what}{give}"):
            file_info(path)


def test_what_a_reader_sees() -> None:
    assert bare("cafe\u0301") == bare("café") == bare("\ufeff caf\u00e9\u200b\u00a0") == "caf\u00e9"
    assert bare("a \u00a0 b") == "a b"
    assert bare("\u200b\u00a0") == ""
    assert bare("Cat") != bare("cat")
    assert shown("café au lait") == "café au lait"
    assert shown("a\nb\u200b") == r"'a\nb\u200b'"
