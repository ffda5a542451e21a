"""Sifting, decoding and comparing so that reads do not feel it: in slices, and much of it in a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from msgspec.msgpack import Decoder

import modelcatalog_server
from modelcatalog_server.domain.errors import RefreshError
from modelcatalog_server.domain.models import ModelRecord
from modelcatalog_server.domain.ports.upstream import MessageEncoder, ModelSink
from modelcatalog_server.domain.refresh import Difference, KnownState, Payload
from modelcatalog_server.domain.tasks import advance, end_tasks, find_in_slices, run_in_slices
from modelcatalog_server.modelsdev.comparison_process import Question, Reply, read_frame, write_frame
from modelcatalog_server.modelsdev.decode import Answer, RecordDecoder, Task
from modelcatalog_server.modelsdev.links import LinkTables
from modelcatalog_server.modelsdev.sift import Sift

#: Text that is decoded in this process: as much as takes the time in which another one has started.
_IN_PLACE_BYTES = 512 * 1024
_BATCH_TASKS = 100  # the answer takes about a millisecond of the event loop
_BATCH_BYTES = 256 * 1024

# Without site, which takes as long as the rest: our own path is good for the process too.
_BOOT = (
    "import sys; sys.path[:] = sys.argv[2:]; from modelcatalog_server.modelsdev.comparison_process import main; main()"
)

_replies = Decoder(Reply)


class SpawnedComparison:
    """Fills the port ``PayloadComparison``. Takes one question at a time; a failed one ends the process.

    The payload is sifted on the event loop, in slices of a millisecond. Of the records that remain the first are
    decoded likewise; where there are more, a process starts meanwhile, and goes on with the others. What it has decoded
    is encoded here and handed on while it decodes on: together with PostgreSQL they keep two cores busy.

    It is a plain child with two pipes. An executor of :mod:`multiprocessing` would run the server's main module again
    in the child, leave a resource tracker behind, and hand the result over as one pickle that stops the event loop for
    a third of a second.

    The process ends with this one: its input closes, and on Linux the kernel kills it when the *thread* that started it
    ends, which is the event loop's.

    Args:
        encode: Makes the messages of the models to write.
        tables: What earlier runs of this process found out about links.
    """

    def __init__(self, encode: MessageEncoder, tables: LinkTables | None = None) -> None:
        self._encode = encode
        self._tables = tables or LinkTables()
        self._is_open = False
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        """Begin. Nothing is started before it is needed."""
        self._is_open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End the process, if there is one, whatever it is doing."""
        self._is_open = False
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # at once, so that nothing is left even if what follows is cancelled
            await asyncio.shield(asyncio.to_thread(_reap, process))

    async def compare(
        self, payload: Payload, known: KnownState, *, provider_id: str | None, full: bool, take: ModelSink
    ) -> Difference:
        """Return what has to be written, and hand on its models as they come.

        With ``provider_id`` only that provider and its models are looked at.

        Raises:
            UpstreamInvalidError: The payload as a whole is no catalog.
            RefreshError: The process failed.
        """
        if not self._is_open:
            raise RefreshError("the comparison has not been started")
        sift = Sift(payload, known, provider_id=provider_id, full=full, tables=self._tables)
        try:
            answers = await self._decode(sift, full=full, take=take)
        except BaseException:
            if self._process is not None:
                self._process.kill()  # or its answer would be taken for that to the next question
            raise
        return await find_in_slices(sift.conclude(answers))

    async def _decode(self, sift: Sift, *, full: bool, take: ModelSink) -> list[Answer]:
        sifting = sift.steps()
        is_more = True
        while is_more and sift.waiting_bytes <= _IN_PLACE_BYTES:
            is_more = await advance(sifting)
        if is_more:
            self._process = self._process or _start()
        first = Answer()
        decoder = RecordDecoder(full=full)
        await run_in_slices(decoder.steps(sift.take_tasks(), first))
        await self._hand_on(first.models, take)
        if self._process is None or not is_more:
            return [first]
        question = Question(full=full, bad=decoder.bad)
        return [first, *await self._decode_in_process(self._process, sift, sifting, question, take)]

    async def _decode_in_process(
        self, process: subprocess.Popen[bytes], sift: Sift, sifting: Iterator[None], question: Question, take: ModelSink
    ) -> list[Answer]:
        if process.stdin is None or process.stdout is None:
            raise RefreshError("the comparison process has no pipes")
        asking = asyncio.create_task(_ask(process.stdin, sift, sifting, question), name="comparison-questions")
        reading = asyncio.create_task(self._read_answers(process.stdout, take), name="comparison-answers")
        try:
            # Neither may wait for the other once it has failed: the pipes are full then.
            await asyncio.wait({asking, reading}, return_when=asyncio.FIRST_EXCEPTION)
            if asking.done():
                asking.result()
            return reading.result()
        except (EOFError, BrokenPipeError) as error:
            status = await asyncio.to_thread(process.wait)
            raise RefreshError(f"the comparison process ended {_how(status)} and gave no result") from error
        finally:
            await end_tasks(asking, reading)
            for task in (asking, reading):
                if not task.cancelled():
                    task.exception()  # it has been raised, or something worse has

    async def _read_answers(self, stream: IO[bytes], take: ModelSink) -> list[Answer]:
        answers: list[Answer] = []
        while True:
            # The thread's turn is also the event loop's: nothing stops it for longer than one answer takes.
            reply = _replies.decode(await asyncio.to_thread(read_frame, stream))
            if reply.is_last:
                return answers
            answers.append(reply.answer)
            await asyncio.sleep(0)
            await self._hand_on(reply.answer.models, take)

    async def _hand_on(self, models: Sequence[ModelRecord], take: ModelSink) -> None:
        encoded: list[tuple[ModelRecord, bytes]] = []

        def encode() -> Iterator[None]:
            for model in models:
                encoded.append((model, self._encode(model)))
                yield

        await run_in_slices(encode())
        if encoded:
            await take(encoded)


async def _ask(stream: IO[bytes], sift: Sift, sifting: Iterator[None], question: Question) -> None:
    while await advance(sifting):
        if sift.waiting_bytes >= _BATCH_BYTES:
            await _send(stream, sift.take_tasks(), question)
    await _send(stream, sift.take_tasks(), question)
    await asyncio.to_thread(write_frame, stream, Question(is_last=True))


async def _send(stream: IO[bytes], tasks: list[Task], question: Question) -> None:
    for start in range(0, len(tasks), _BATCH_TASKS):
        part = Question(full=question.full, bad=question.bad, tasks=tasks[start : start + _BATCH_TASKS])
        await asyncio.to_thread(write_frame, stream, part)


def _start() -> subprocess.Popen[bytes]:
    own = str(Path(modelcatalog_server.__path__[0]).parent)
    # Without what stands for the working directory: what is there is no module of ours.
    paths = [own, *(path for path in sys.path if path)]
    try:
        return subprocess.Popen(
            [sys.executable, "-S", "-P", "-c", _BOOT, str(os.getpid()), *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is the server's to handle
        )
    except OSError as error:
        raise RefreshError(f"the comparison process cannot be started: {error.strerror}") from error


def _reap(process: subprocess.Popen[bytes]) -> None:
    with suppress(BrokenPipeError), process:  # waits, and closes the pipes
        process.kill()


def _how(status: int) -> str:
    """Say how a process ended; by SIGKILL it is the kernel, short of memory, or an operator."""
    return f"by signal {-status}" if status < 0 else f"with status {status}"
