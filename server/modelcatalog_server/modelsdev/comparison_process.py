"""The process that decodes and compares, and what it says over its pipes.

A frame is its length and a MessagePack message. One :class:`Question` in; one :class:`Answer` out, followed by as many
frames of :data:`ModelSlice` as it says. The slices exist so that the reader can decode the thousands of records of a
first load in pieces of a few milliseconds.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder

from modelcatalog_server.domain.errors import UpstreamInvalidError
from modelcatalog_server.domain.models import ModelRecord
from modelcatalog_server.domain.refresh import Difference, KnownState, Payload
from modelcatalog_server.modelsdev.decode import compare_payload

ModelSlice = list[ModelRecord]

_SLICE_MODELS = 200
_LENGTH = struct.Struct(">Q")
_PR_SET_PDEATHSIG = 1
_NICENESS = 10

_encoder = Encoder()


class Question(Struct):
    """The arguments of a comparison."""

    payload: Payload
    known: KnownState
    provider_id: str | None
    full: bool


class Answer(Struct):
    """A difference, whose models follow in ``slices`` frames, or why the payload is no catalog."""

    difference: Difference | None = None
    slices: int = 0
    invalid: str = ""


def write_frame(stream: IO[bytes], message: Question | Answer | ModelSlice) -> None:
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
    _end_with_parent(int(sys.argv[1]))
    os.nice(_NICENESS)  # whoever reads the catalog goes first
    gc.disable()  # nothing here makes cycles, and the process is short-lived
    questions = Decoder(Question)
    while True:
        try:
            question = questions.decode(read_frame(sys.stdin.buffer))
        except EOFError:
            return
        for message in _answer(question):
            write_frame(sys.stdout.buffer, message)


def _answer(question: Question) -> Iterator[Answer | ModelSlice]:
    try:
        difference = compare_payload(
            question.payload, question.known, provider_id=question.provider_id, full=question.full
        )
    except UpstreamInvalidError as error:
        yield Answer(invalid=str(error))
        return
    models = difference.models
    starts = range(0, len(models), _SLICE_MODELS)
    yield Answer(difference=replace(difference, models=()), slices=len(starts))
    for start in starts:
        yield list(models[start : start + _SLICE_MODELS])


def _end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies; elsewhere than on Linux the closing pipe has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        sys.exit(1)


if __name__ == "__main__":
    main()
