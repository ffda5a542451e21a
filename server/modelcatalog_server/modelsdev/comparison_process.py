"""The process that decodes, and what it says over its pipes.

A frame is its length and a MessagePack message. For each :class:`Question` that comes in a :class:`Reply` goes out,
while the next one is still being put together. What it imports is what starting it costs.
"""

from __future__ import annotations

import gc
import os
import struct
import sys
from typing import IO

import msgspec
from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder

from modelcatalog_server.modelsdev.decode import Answer, BadIds, RecordDecoder, Task
from modelcatalog_server.processes import end_with_parent

_LENGTH = struct.Struct(">Q")
_NICENESS = 10

_encoder = Encoder()


class Question(Struct):
    """Some tasks of a payload. With the last one the next payload begins.

    ``full``, and ``bad``, what is known to be bad before the first question, are the same in all of one.
    """

    full: bool = False
    bad: BadIds = msgspec.field(default_factory=BadIds)
    tasks: list[Task] = []
    is_last: bool = False


class Reply(Struct):
    """What became of a question's tasks."""

    answer: Answer
    is_last: bool


def write_frame(stream: IO[bytes], message: Question | Reply) -> None:
    """Send one message."""
    body = _encoder.encode(message)
    stream.write(_LENGTH.pack(len(body)))
    stream.write(body)
    stream.flush()


def read_frame(stream: IO[bytes]) -> bytes:
    """Return the next message, undecoded.

    Raises:
        EOFError: The other side is gone.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (size,) = _LENGTH.unpack(head)
    body = stream.read(size)
    if len(body) < size:
        raise EOFError
    return body


def main() -> None:
    """Answer questions until there are no more."""
    end_with_parent(int(sys.argv[1]))
    os.nice(_NICENESS)  # whoever reads the catalog goes first
    gc.disable()  # nothing here makes cycles, and the process is short-lived
    # Where PYTHONUNBUFFERED is set, standard output writes what the pipe has room for when a signal comes, and no more.
    with open(sys.stdout.fileno(), "wb", closefd=False) as answers:
        _answer(sys.stdin.buffer, answers)


def _answer(asked: IO[bytes], answers: IO[bytes]) -> None:
    questions = Decoder(Question)
    decoder: RecordDecoder | None = None
    while True:
        try:
            question = questions.decode(read_frame(asked))
        except EOFError:
            return
        decoder = decoder or RecordDecoder(full=question.full, bad=question.bad)
        write_frame(answers, Reply(decoder.answer(question.tasks), question.is_last))
        if question.is_last:
            decoder = None
