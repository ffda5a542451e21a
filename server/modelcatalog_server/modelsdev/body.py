"""A document's bytes, received piece by piece and inflated within a bound."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Protocol

from modelcatalog_server.domain.errors import UpstreamInvalidError

_PIECE_BYTES = 32 * 1024
_READ_BYTES = 4 * 1024
_GZIP_WBITS = 16 + zlib.MAX_WBITS
_ZLIB_METHOD = 8  # the low half of a zlib stream's first byte; some servers send raw deflate by the same name


class _Inflater(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes: ...


class BoundedBody:
    """Takes a body as it comes over the wire and gives the document.

    Inflating is done here and not by aiohttp, which takes truncated gzip for a whole document and inflates before
    anyone can count. Neither the bytes received nor those inflated ever exceed the bound by more than a piece.
    """

    def __init__(self, name: str, encoding: str, max_bytes: int) -> None:
        """Begin a body.

        Args:
            name: The document's name, for messages.
            encoding: Its Content-Encoding; empty for none.
            max_bytes: The bound, for what is received and for what is inflated.

        Raises:
            UpstreamInvalidError: The encoding is none that was asked for.
        """
        self.received = 0
        self._name = name
        self._encoding = encoding.strip().lower()
        self._max_bytes = max_bytes
        self._size = 0
        self._document = io.BytesIO()  # takes its memory bit by bit, which joining pieces would do all at once
        self._inflater: _Inflater | None = None
        if self._encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise UpstreamInvalidError(f"{name} came in an encoding that was not asked for")

    def feed(self, chunk: bytes) -> Iterator[None]:
        """Take, in steps, what was received.

        Raises:
            UpstreamInvalidError: It is too much, or not what its encoding says.
        """
        self.received += len(chunk)
        self._check(self.received, "")
        if self._encoding in {"", "identity"}:
            self._take(chunk)
            return
        try:
            for start in range(0, len(chunk), _READ_BYTES):
                yield from self._inflate(chunk[start : start + _READ_BYTES])
        except zlib.error as error:
            raise UpstreamInvalidError(
                f"{self._name}: its compression is corrupt after {self._size:,} bytes"
            ) from error

    def finish(self) -> bytes:
        """Return the document.

        Raises:
            UpstreamInvalidError: It is empty or its compression ends early.
        """
        if self._inflater is not None and not self._inflater.eof:
            raise UpstreamInvalidError(f"{self._name}: its compression ends early, after {self._size:,} bytes")
        if not self._size:
            raise UpstreamInvalidError(f"{self._name} is empty")
        return self._document.getvalue()

    def _inflate(self, data: bytes) -> Iterator[None]:
        inflater = self._inflater
        while True:
            if inflater is None or inflater.eof:  # gzip may be several members in a row
                if not data:
                    return
                inflater = self._inflater = self._new_inflater(data)
            piece = inflater.decompress(data, _PIECE_BYTES)
            self._take(piece)
            data = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            yield
            if not data and len(piece) < _PIECE_BYTES:
                return

    def _new_inflater(self, data: bytes) -> _Inflater:
        if self._encoding != "deflate":
            return zlib.decompressobj(_GZIP_WBITS)
        is_zlib = data[0] & 0x0F == _ZLIB_METHOD
        return zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)

    def _take(self, piece: bytes) -> None:
        self._size += len(piece)
        self._check(self._size, " uncompressed")
        self._document.write(piece)

    def _check(self, size: int, how: str) -> None:
        if size > self._max_bytes:
            raise UpstreamInvalidError(f"{self._name} has more than {self._max_bytes:,} bytes{how}")
