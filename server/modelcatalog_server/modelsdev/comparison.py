"""Decoding and comparing off the event loop, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from typing import IO, Self

from msgspec.msgpack import Decoder

from modelcatalog_server.domain.errors import RefreshError, UpstreamInvalidError
from modelcatalog_server.domain.models import ModelRecord
from modelcatalog_server.domain.refresh import Difference, KnownState, Payload
from modelcatalog_server.modelsdev.comparison_process import Answer, ModelSlice, Question, read_frame, write_frame

_PROGRAM = "modelcatalog_server.modelsdev.comparison_process"

_answers = Decoder(Answer)
_slices = Decoder(ModelSlice)


class SpawnedComparison:
    """Fills the port ``PayloadComparison``. Takes one question at a time; a failed one ends the process.

    A plain child with two pipes. An executor of :mod:`multiprocessing` would run the server's main module again in the
    child, leave a resource tracker behind, and hand the result over as one pickle that stops the event loop for a third
    of a second.

    The process ends with this one: its input closes, and on Linux the kernel kills it when the *thread* that entered
    ends, which is the event loop's.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        """Start the process. It imports its modules while the caller fetches.

        Raises:
            RefreshError: It cannot be started.
        """
        self._process = _start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End the process, whatever it is doing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # at once, so that nothing is left even if what follows is cancelled
            await asyncio.shield(asyncio.to_thread(_reap, process))

    async def compare(self, payload: Payload, known: KnownState, *, provider_id: str | None, full: bool) -> Difference:
        """Return what has to be written. With ``provider_id`` only that provider and its models are looked at.

        Raises:
            UpstreamInvalidError: The payload as a whole is no catalog.
            RefreshError: The process failed.
        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RefreshError("the comparison has not been started")
        try:
            question = Question(payload=payload, known=known, provider_id=provider_id, full=full)
            await asyncio.to_thread(write_frame, process.stdin, question)
            answer = _answers.decode(await asyncio.to_thread(read_frame, process.stdout))
            if answer.difference is None:
                raise UpstreamInvalidError(answer.invalid)
            return replace(answer.difference, models=await _read_models(process.stdout, answer.slices))
        except (EOFError, BrokenPipeError) as error:
            status = await asyncio.to_thread(process.wait)
            raise RefreshError(f"the comparison process ended {_how(status)} and gave no result") from error
        except asyncio.CancelledError:
            process.kill()  # or its answer would be taken for that to the next question
            raise


def _start() -> subprocess.Popen[bytes]:
    # -P: what is in the working directory is no module of ours.
    command = [sys.executable, "-P", "-m", _PROGRAM, str(os.getpid())]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is the server's to handle
        )
    except OSError as error:
        raise RefreshError(f"the comparison process cannot be started: {error.strerror}") from error


async def _read_models(stream: IO[bytes], slices: int) -> tuple[ModelRecord, ...]:
    models: ModelSlice = []
    for _ in range(slices):
        # The thread's turn is also the event loop's: nothing stops it for longer than one slice takes.
        models += _slices.decode(await asyncio.to_thread(read_frame, stream))
    return tuple(models)


def _reap(process: subprocess.Popen[bytes]) -> None:
    with suppress(BrokenPipeError), process:  # waits, and closes the pipes
        process.kill()


def _how(status: int) -> str:
    """Say how a process ended; by SIGKILL it is the kernel, short of memory, or an operator."""
    return f"by signal {-status}" if status < 0 else f"with status {status}"
