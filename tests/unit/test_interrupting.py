"""Ctrl-C while something is waited for: it ends that, at a place where nothing is half done."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from modelcatalog_server.commands.interrupting import interrupting


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_it_stops_what_is_waited_for_and_is_raised_when_that_has_ended() -> None:
    stopped, done = threading.Event(), list[str]()

    def wait() -> None:
        with interrupting(stopped.set):
            press_ctrl_c()
            assert stopped.wait(20)
            done.append("the block")

    with pytest.raises(KeyboardInterrupt):
        wait()
    assert done, "it came in the midst of the block"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_one_does_not_wait() -> None:
    asked, done = threading.Event(), list[str]()

    def wait() -> None:
        with interrupting(asked.set):
            press_ctrl_c()
            assert asked.wait(20)
            press_ctrl_c()
            done.append("the block")

    with pytest.raises(KeyboardInterrupt):
        wait()
    assert not done


def test_what_ends_by_itself_is_not_stopped() -> None:
    stopped = threading.Event()
    with interrupting(stopped.set):
        (waiting,) = [thread for thread in threading.enumerate() if thread.name == "interrupting"]
    waiting.join(20)
    assert (waiting.is_alive(), stopped.is_set()) == (False, False)


def test_in_another_thread_there_is_nothing_to_do() -> None:
    ended = threading.Event()

    def work() -> None:
        with interrupting(lambda: None):
            ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended.is_set()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
