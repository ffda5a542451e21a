"""Structured logs: JSON lines, or readable ones on a terminal. They go to standard error.

How much is logged can be switched while the process runs: SIGUSR1 turns to ``debug``, and back.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any, Literal, TextIO

import msgspec
import structlog

Level = Literal["debug", "info", "warning", "error"]

_log = structlog.get_logger(__name__)

#: By the names of the methods of a logger.
_SEVERITIES = {name.lower(): severity for name, severity in logging.getLevelNamesMapping().items()} | {
    "exception": logging.ERROR
}


class LogLevel:
    """The least severe level that is logged: that of the settings, or ``debug``."""

    def __init__(self) -> None:
        self._usual = self._least = logging.INFO
        self._listeners: list[Callable[[bool], None]] = []

    def admits(self, method: str) -> bool:
        """Whether what is logged by a method of this name is severe enough."""
        return _SEVERITIES[method] >= self._least

    def set_usual(self, level: Level) -> None:
        """Log from this level on."""
        self._usual = logging.getLevelNamesMapping()[level.upper()]
        self._turn_to(self._usual)

    def switch(self) -> None:
        """Turn to ``debug``, or back to what is usual."""
        self._turn_to(self._usual if self.is_debug else logging.DEBUG)
        _log.warning("log level switched", to=logging.getLevelName(self._least).lower())

    @property
    def is_debug(self) -> bool:
        """Whether everything is logged."""
        return self._least <= logging.DEBUG

    @contextmanager
    def followed_by(self, listener: Callable[[bool], None]) -> Iterator[None]:
        """Tell somebody whether everything is logged, now and after each switch while the block runs."""
        self._listeners.append(listener)
        listener(self.is_debug)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def _turn_to(self, least: int) -> None:
        self._least = least
        for listener in self._listeners:
            listener(self.is_debug)


#: Of this process.
LEVEL = LogLevel()


class _SwitchedLogger(structlog.make_filtering_bound_logger(logging.DEBUG)):  # type: ignore[misc] # made at run time
    """Drops what is not severe enough now; loggers that exist hear of a switch, too."""

    def _proxy_to_logger(self, method_name: str, event: str | None = None, **fields: Any) -> Any:
        return super()._proxy_to_logger(method_name, event, **fields) if LEVEL.admits(method_name) else None


def _escape(text: str, *, spared: str = "") -> str:
    """Return text that does nothing to a terminal and fills no line of its own: others may have written it."""
    return "".join(each if each.isprintable() or each in spared else repr(each)[1:-1] for each in text)


def _escape_texts(_logger: Any, _method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape what is shown as it is; other values than texts are shown by their ``repr``, which does the same."""
    return {name: _escape(value) if isinstance(value, str) else value for name, value in fields.items()}


#: Made once: ``json.dumps`` with a ``default`` makes one a line, which takes longer than to encode it.
_ASCII_ENCODER = json.JSONEncoder(default=repr, separators=(",", ":"))
_ENCODER = msgspec.json.Encoder(enc_hook=repr)


def _encode(fields: structlog.typing.EventDict, **_options: Any) -> bytes:
    """Return a line of JSON. It is ASCII: what is not is escaped, as it may do something to a terminal."""
    try:
        line = _ENCODER.encode(fields)
    except (TypeError, UnicodeEncodeError):  # half a surrogate pair, or a key that is no text
        line = b"\xff"
    return line if line.isascii() else _ASCII_ENCODER.encode(fields).encode("ascii")


def _decode(_logger: Any, _method: str, line: Any) -> str:
    text: str = line.decode("ascii")
    return text


def _write_traceback(output: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    plain = StringIO()
    structlog.dev.plain_traceback(plain, exc_info)
    output.write(_escape(plain.getvalue(), spared="\n\t"))


def set_up_logs(level: Level, log_format: Literal["auto", "console", "json"]) -> None:
    """Send every log line, ours and the libraries', through one pipeline. Libraries are heard from warnings on."""
    LEVEL.set_usual(level)
    readable = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks without the values of variables: database URLs and keys are among them.
    rendering: list[structlog.typing.Processor] = (
        [
            _escape_texts,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_write_traceback),
        ]
        if readable
        else [
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(_encode),
        ]
    )
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=_SwitchedLogger,
        # A line at once: several processes may write.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr)
        if readable
        else structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *rendering,
            *([] if readable else [_decode]),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    # It tells of each connection what we tell once of the database.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    # It tells, with a traceback, of each header that is no text: whoever can connect could fill the log with that.
    logging.getLogger("grpc._cython.cygrpc").addFilter(lambda record: record.msg != "Invalid encoding on %s")
    logging.basicConfig(level=logging.ERROR if level == "error" else logging.WARNING, handlers=[handler])
