"""Text files of the user, as people's programs write them: which letters their bytes are."""

import codecs

#: The mark of UTF-32 begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode(data: bytes) -> str:
    """The text of a file: UTF-8, or the encoding that its byte order mark says.

    The mark is left out, line ends stay. What has another encoding is never guessed: a wrong letter
    in a path is a missing image.

    Raises:
        ValueError: With what is wrong and in which line, without the name of the file.
    """
    mark, encoding = next(
        ((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8")
    )
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(_wrong(error)) from None
    if "\0" in text:
        line = _line(text[: text.index("\0")])
        raise ValueError(f"line {line} holds a NUL character, as UTF-16 without its mark does")
    return text


def _wrong(error: UnicodeDecodeError) -> str:
    if error.encoding != "utf-8":
        return f"its mark says {error.encoding.upper()}, which it is not"
    line = _line(error.object[: error.start].decode("latin-1"))
    byte = error.object[error.start : error.start + 1]
    letter = byte.decode("cp1252", errors="replace")
    shown = f", {letter!r} in Windows-1252" if letter.isprintable() and letter != "\ufffd" else ""
    return f"line {line} is not UTF-8: byte 0x{byte.hex()}{shown}"


def _line(before: str) -> int:
    """The line in which a text goes on; line ends may be those of Unix, Windows or the old Mac."""
    return before.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
