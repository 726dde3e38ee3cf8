"""Tables of the user, as office programs and data frames write them."""

import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dollmaker.runtime.errors import DataError
from dollmaker.store import tables

WANTED = [
    {"file": "b/1.png", "mass": "0.5", "note": None},
    {"file": "2.png", "mass": "7", "note": "ü"},
]
PLAIN = "file,mass,note\nb/1.png,0.5,\n2.png,7,ü\n"


def read(folder: Path, content: str | bytes, name: str = "t.csv") -> list[dict[str, Any]]:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    return tables.read_source(folder / name).to_dicts()


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t").encode("utf-16"),
        PLAIN.encode("utf-16-be").join([b"\xfe\xff", b""]),
        "sep=|\r\n" + PLAIN.replace(",", "|"),
        '"sep=;"\n' + PLAIN.replace(",", ";"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r\r\n"),  # Windows line ends, written as text once more
        PLAIN.replace("\n", "\r"),
        PLAIN.removesuffix("\n"),
        PLAIN.replace(",", " ,\u00a0"),
        PLAIN.replace("file,mass", '\u202afile, "mass\u200b"').replace("2.png,7", '"2.png", "7"'),
        PLAIN.replace("\n", ",,\n"),
        PLAIN + ",,\n" * 3 + "\n\n",
        PLAIN.replace("0.5,", "0.5"),  # Excel leaves out empty cells at the end
        PLAIN.replace("0.5,", "0.5,,,"),
        gzip.compress(PLAIN.encode(), mtime=0),
    ],
)  # fmt: skip
def test_every_way_to_write_a_table_is_the_same_table(tmp_path: Path, content: str | bytes) -> None:
    assert read(tmp_path, content) == WANTED


def test_the_header_says_what_divides_the_cells(tmp_path: Path) -> None:
    assert read(tmp_path, "image;size (h, w);A\nx;1, 2;1\n")[0]["size (h, w)"] == "1, 2"
    assert read(tmp_path, "image,A;B\nx,1\n")[0] == {"image": "x", "A;B": "1"}
    assert read(tmp_path, "image;A\nx;1,0\n")[0]["A"] == "1,0"
    assert read(tmp_path, "image\nx;1\n")[0]["image"] == "x;1"


def test_cells_may_hold_quotes_delimiters_and_lines(tmp_path: Path) -> None:
    table = read(tmp_path, 'a,"b ""c"""\n"x,y",5" tube\n"two\nlines",z\n')
    assert table == [{"a": "x,y", 'b "c"': '5" tube'}, {"a": "two\nlines", 'b "c"': "z"}]


def test_empty_rows_in_the_middle_keep_the_numbers_of_lines(tmp_path: Path) -> None:
    assert [row["a"] for row in read(tmp_path, "a,b\n1,2\n\n,\n5,6\n,\n")] == ["1", None, None, "5"]


def test_columns_without_a_name_are_called_by_their_place(tmp_path: Path) -> None:
    assert read(tmp_path, ",a,,b,\n0,x,,y,\n")[0] == {"column 1": "0", "a": "x", "b": "y"}
    assert read(tmp_path, "a,finding\nx,\n")[0] == {"a": "x", "finding": None}


def test_tables_longer_than_a_block_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_BLOCK", 3)
    assert len(read(tmp_path, "a,b\n" + "1,2\n" * 6)) == 6
    with pytest.raises(DataError, match="line 9 has 3 cells"):
        read(tmp_path, "a,b\n" + "1,2\n" * 7 + "1,2,3\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (" \n\n", "it is empty"),
        ("a,b\n", "has no rows"),
        ("a,b\n,\n", "has no rows"),
        ("sep=;\n", "line 1 is empty"),
        ("\na,b\n1,2\n", "line 1 is empty; name the columns there"),
        ("a,b\n1,2\n1,2,3\n", "line 3 has 3 cells and the header 2, divided by ','"),
        ("a;b\n1;2\n1;2;3\n", "line 3 .* divided by ';'"),
        ('a,b\n1,2\n"x,2\n3,4\n', "row from line 3 has wrong quotes"),
        ("a,b, a \n1,2,3\n", "2 columns called 'a'; rename all but one"),
        ("a,b\n1,Zürich\n".encode("cp1252"), r"line 2 .* 'ü' in Windows-1252\); save it as CSV in"),
        (b"PK\x03\x04" + bytes(99), "it is a workbook or an archive"),
        (b"\x1f\x8b no gzip", "is not readable"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    tmp_path: Path, content: str | bytes, words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert "t.csv" in str(caught.value)


def test_a_huge_table_is_refused_before_it_is_unpacked_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_MOST_BYTES", 1000)
    assert len(read(tmp_path, b"a\n" + b"1\n" * 499)) == 499
    for data in (b"a\n" + b"1\n" * 500, gzip.compress(b"a\n" + b"1\n" * 10**5, mtime=0)):
        with pytest.raises(DataError, match="larger than 1000 bytes"):
            read(tmp_path, data)


def test_columns_of_parquet_become_the_text_that_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pl.DataFrame(
        {
            " patient ": [12.0, 1e16, None],
            "share": [0.5, 1.0, float("nan")],
            "absent": pl.Series([float("nan")] * 3, dtype=pl.Float32),
            "kind": pl.Series(["a", None, "b"], dtype=pl.Categorical),
            "sure": [True, None, False],
            "number": [2**60 + 1, None, 3],
            "odd": [float("inf"), 2.0, 3.0],
        }
    ).write_parquet(file)
    assert tables.read_source(file).to_dict(as_series=False) == {
        "patient": ["12", "10000000000000000", None],
        "share": ["0.5", "1.0", None],
        "absent": [None] * 3,
        "kind": ["a", None, "b"],
        "sure": ["true", None, "false"],
        "number": [str(2**60 + 1), None, "3"],
        "odd": ["inf", "2.0", "3.0"],
    }


def test_parquet_with_lists_is_refused_by_its_column(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pl.DataFrame({"a": ["x"], "boxes": [[1, 2]]}).write_parquet(file)
    with pytest.raises(DataError, match="column 'boxes' holds lists, not one value a row"):
        tables.read_source(file)


def test_names_of_files_are_no_patterns(tmp_path: Path) -> None:
    pl.DataFrame({"a": ["x"]}).write_parquet(tmp_path / "labels [1] *.parquet")
    assert len(tables.read_source(tmp_path / "labels [1] *.parquet")) == 1
    assert len(read(tmp_path, "a\nx\n", "labels [1] *.csv")) == 1


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    table = pl.DataFrame({"im\nage": ["x"], "A": ["1"]})
    with pytest.raises(DataError, match=r"lacks the column 'B'; it has: im age, A\. Correct"):
        tables.require_columns(table, ["A", "B"], tmp_path / "t.csv")


def test_texts_that_exports_protect_from_office_programs(tmp_path: Path) -> None:
    text = 'who,file\n="007",1.png\n"=""08""",2.png\na="x",3.png\n'
    assert [row["who"] for row in read(tmp_path, text)] == ["007", "08", 'a="x"']


def test_a_table_of_one_column_hints_at_what_divides_cells(tmp_path: Path) -> None:
    read(tmp_path, "file|mass\na|1\n")
    table = tables.read_source(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"it has: file\|mass, as one column: cells are divided by"):
        tables.require_columns(table, ["file"], tmp_path / "t.csv")


@pytest.mark.parametrize("text", ["\n<html><td>file</td></html>", "{\\rtf1 file}"])
def test_pages_that_are_called_tables_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="it is a web page, JSON or rich text"):
        read(tmp_path, text)
