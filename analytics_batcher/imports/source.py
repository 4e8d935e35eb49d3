"""A source of bytes: a file or standard input, gzipped or not, in an encoding whose lines end with a newline's byte.

What is read can be gone on with at a position that an earlier process noted: by a seek, or where there is none by
reading up to it.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, cast

from .problems import ImportProblem

if TYPE_CHECKING:
    from typing_extensions import Buffer

STDIN: Final = "-"
HEAD_BYTES: Final = 2**18
"""What is looked at before anything is sent: it shows the encoding, the delimiter and the columns' types."""
FALLBACK: Final = "cp1252"
"""What is taken for the encoding of what is not UTF-8."""
_PIECE_BYTES: Final = 2**20
_MARK: Final = "analytics_batcher.marked"
_ESCAPED: Final = 0xDC00
_GZIP: Final = b"\x1f\x8b"
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Head(NamedTuple):
    """The beginning of a source.

    Attributes:
        data: Its bytes, without a byte-order mark; in UTF-8 if the encoding is a wide one.
        skipped: The bytes of the byte-order mark.
        whole: Whether that is all of it.
        encoding: The encoding of the stream, as it is to be decoded.
        wide: The source's own encoding, if that is a wide one; then the stream is in UTF-8, and a byte that could not
            be decoded is a lone surrogate in it.
    """

    data: bytes
    skipped: int
    whole: bool
    encoding: str
    wide: str = ""


class Source:
    """A file, or standard input, as bytes.

    Args:
        path: The file, or `-`.
        encoding: Its encoding; `None`: found out.

    Raises:
        ImportProblem: If the encoding is unknown.
        OSError: If it cannot be read.
    """

    def __init__(self, path: str, encoding: str | None = None) -> None:
        self.path = path
        self.is_file = path != STDIN
        if encoding is not None:
            try:
                codecs.lookup(encoding)
            except LookupError:
                raise ImportProblem("there is no such encoding", where="encoding", found=encoding) from None
        raw = self._file = self._raw()
        first = raw.peek(len(codecs.BOM_UTF32_LE))
        self.gzipped = first.startswith(_GZIP)
        if self.gzipped:
            raw = io.BufferedReader(_Inflated(raw), _PIECE_BYTES)
            first = raw.peek(len(codecs.BOM_UTF32_LE))
        bom, marked = next(((bom, name) for bom, name in _BOMS if first.startswith(bom)), (b"", None))
        chosen = codecs.lookup(encoding).name if encoding else marked
        wide = chosen is not None and chosen.startswith(("utf-16", "utf-32"))
        self._seekable = self.is_file and not self.gzipped and not wide
        if wide:
            raw = io.BufferedReader(_Narrowed(raw, str(chosen)), _PIECE_BYTES)
            bom = codecs.BOM_UTF8  # left there by an encoding that names its order of bytes
        self._stream: io.BufferedReader = raw
        data = raw.read(HEAD_BYTES)
        whole = len(data) < HEAD_BYTES
        skipped = len(bom) if data.startswith(bom) else 0
        known = "utf-8" if wide else _python_name(chosen)
        self.head = Head(
            data[skipped:], skipped, whole, known or _guessed(data, whole=whole), str(chosen) if wide else ""
        )

    def _raw(self) -> io.BufferedReader:
        if self.is_file:
            path = Path(self.path)
            # A look is taken at a file before it is read, and what a pipe has given it does not give again.
            if path.exists() and not path.is_file() and not path.is_dir():
                raise ImportProblem(
                    "is no file that can be read twice", where=self.path, expected="a file; or -, and standard input"
                )
            return cast("io.BufferedReader", path.open("rb", _PIECE_BYTES))
        return cast("io.BufferedReader", sys.stdin.buffer)

    @property
    def name(self) -> str:
        """What the source is called."""
        return self.path if self.is_file else "standard input"

    @property
    def identity(self) -> tuple[int, int]:
        """What tells a file from another one of the same name."""
        found = os.fstat(self._file.fileno())
        return found.st_dev, found.st_ino

    def at(self, offset: int, *, last: int = 0) -> tuple[BinaryIO, bytes]:
        """The stream from a position on; to be asked for once.

        Args:
            offset: The bytes before it.
            last: How many of these to give back.

        Returns:
            The stream, and the bytes just before the position; fewer where the source has become shorter.
        """
        begin = offset - last
        if self._seekable:
            self._stream.seek(begin)
            return self._stream, self._stream.read(last)
        head = (b"\0" * self.head.skipped) + self.head.data
        stream = io.BufferedReader(_Rejoined(head, self._stream), _PIECE_BYTES)
        left = begin
        while left and (piece := stream.read(min(left, _PIECE_BYTES))):
            left -= len(piece)
        return stream, stream.read(last)

    def count_lines(self) -> int | None:
        """The lines of a plain file; `None` where they cannot be counted without reading all of it twice as slowly."""
        if not self._seekable:
            return None
        with Path(self.path).open("rb", 0) as file:
            return sum(piece.count(b"\n") for piece in iter(lambda: file.read(_PIECE_BYTES), b""))

    def close(self) -> None:
        """Close the file."""
        if self.is_file:
            self._stream.close()


class _Reading(io.RawIOBase):
    """A stream made of pieces."""

    _rest = b""

    def readable(self) -> bool:
        return True

    def _next(self) -> bytes:
        raise NotImplementedError

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        if not self._rest:
            self._rest = self._next()
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class _Rejoined(_Reading):
    """What was read already, and then the rest."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._rest = head
        self._stream = stream

    def _next(self) -> bytes:
        return self._stream.read(_PIECE_BYTES)


class _Inflated(_Reading):
    """A gzipped stream, unpacked."""

    def __init__(self, stream: BinaryIO) -> None:
        self._file = gzip.GzipFile(fileobj=stream)
        self._stream = stream

    def _next(self) -> bytes:
        try:
            return self._file.read(_PIECE_BYTES)
        except (EOFError, gzip.BadGzipFile) as error:
            raise OSError(f"the gzipped data is broken: {error}") from None

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Narrowed(_Reading):
    """A stream of UTF-16 or UTF-32 as UTF-8: in the wide ones a byte that looks like a newline may be none.

    What is no UTF-8 then marks what was no such text, so that its row is refused.
    """

    def __init__(self, stream: Any, encoding: str) -> None:
        self._text = io.TextIOWrapper(stream, encoding, errors=_MARK, newline="")

    def _next(self) -> bytes:
        return self._text.read(_PIECE_BYTES // 4).encode("utf-8", "surrogatepass")

    def close(self) -> None:
        self._text.close()
        super().close()


def _marked(error: UnicodeError) -> tuple[str, int]:
    """What stands for bytes that cannot be decoded: as `surrogateescape` has it, which knows no bytes below 128."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(_ESCAPED + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_MARK, _marked)


def _python_name(encoding: str | None) -> str | None:
    return "utf-8" if encoding in {"utf-8-sig", "utf-8"} else encoding


def _guessed(data: bytes, *, whole: bool) -> str:
    """UTF-8, or what Windows writes in Western Europe and America, if more lines cannot be UTF-8 than can.

    A few lines in another encoding must not make another text of all the others: these few are refused.
    """
    lines = [line for line in data.split(b"\n") if not line.isascii()]
    if lines and not whole and data.endswith(lines[-1]):
        del lines[-1]  # it may be cut within a character
    fitting = sum(_is_utf8(line) for line in lines)
    return "utf-8" if fitting >= len(lines) - fitting else FALLBACK


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
