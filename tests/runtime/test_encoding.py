"""Texts of the user: marks are obeyed, and nothing is guessed."""

import pytest

from dollmaker.runtime import encoding


@pytest.mark.parametrize("named", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_the_mark_says_the_encoding(named: str) -> None:
    assert encoding.decode("größe,ж\r\n".encode(named)) == "größe,ж\r\n"


def test_the_other_byte_order_has_a_mark_too() -> None:
    assert encoding.decode(b"\xfe\xff\x00a\x00b") == "ab"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a\nb\nKöln\n".encode("cp1252"), "line 3 is not UTF-8: byte 0xf6, 'ö' in Windows-1252"),
        (b"a\r\nb\x9d", "line 2 is not UTF-8: byte 0x9d$"),
        ("a\rb\rŽ".encode("cp1252"), "line 3 .* 'Ž'"),
        ("a\nbc".encode("utf-16-le"), r"line 1 holds a NUL .* UTF-16 without its mark"),
        ("ab".encode("utf-16")[:-1], "mark says UTF-16-LE, which it is not"),
    ],
)
def test_other_encodings_are_refused_with_their_line(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        encoding.decode(data)
