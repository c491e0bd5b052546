"""The child's side of `WorkerProcess`."""

from __future__ import annotations

import inspect
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, BinaryIO

from napari_medt.core import Control, MedtError, OutOfMemory
from napari_medt.core import errors as known_errors
from napari_medt.engine import frames

PROGRESS_EVERY = 0.04  # seconds; more often would only keep the window busy


class Answers:
    """Sends messages to the parent, one at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def send(self, kind: str, number: int, content: Any) -> None:
        """Send an answer to call `number`; raises what pickling it raises."""
        with self._lock:
            try:
                frames.send(self._stream, kind, number, content)
            except BrokenPipeError:
                os._exit(0)

    def fail(self, number: int, error: BaseException) -> None:
        """Send an error as the parent can raise it again; called where it was caught."""
        self.send("error", number, (_in_words(error), traceback.format_exc()))


def main(target: str, nice: int) -> None:
    """Answer calls until the parent closes the pipe."""
    questions = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    answers = Answers(os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0))
    _hide_pipes()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C in the terminal is for the parent, which then ends this process
    if hasattr(os, "nice"):
        os.nice(nice)
    calls: queue.SimpleQueue[frames.Frame] = queue.SimpleQueue()
    cancels: dict[int, Control] = {}
    threading.Thread(target=_listen, args=(questions, calls, cancels), daemon=True).start()

    @cache
    def thing() -> Any:
        module, _, name = target.partition(":")
        return getattr(import_module(module), name)()

    while True:
        _answer(calls.get(), thing, cancels, answers)


def _answer(frame: frames.Frame, thing: Callable[[], Any], cancels: dict[int, Control], answers: Answers) -> None:
    number = frame.number
    try:
        cancels[number].check()
        method, args, kwargs = frame.unpack()
        function = getattr(thing(), method)
        result = function(*args, **kwargs, **_helpers(function, number, cancels[number], answers))
        answers.send("result", number, result)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (the parent must get an answer, whatever happens)
        answers.fail(number, error)
    finally:
        del cancels[number]


def _hide_pipes() -> None:
    """Let what libraries and their children print go to the log, and give them nothing to read."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _listen(stream: BinaryIO, calls: queue.SimpleQueue[frames.Frame], cancels: dict[int, Control]) -> None:
    while True:
        try:
            frame = frames.receive(stream)
        except (EOFError, OSError):
            os._exit(0)  # the window has gone, whatever is being calculated
        except MemoryError:
            sys.stderr.write("There was not enough memory to receive the question.\n")
            os._exit(1)
        if frame.kind == "call":
            cancels[frame.number] = Control()
            calls.put(frame)
        elif control := cancels.get(frame.number):
            {"cancel": control.set, "pause": control.pause, "go on": control.go_on, "stop": control.stop}[frame.kind]()


def _in_words(error: BaseException) -> MedtError:
    """An error as the parent can raise it, of the nearest class of `core`, since others may not be known there."""
    if isinstance(error, MedtError):
        kind = next(kind for kind in type(error).__mro__ if kind.__module__ == known_errors.__name__)
        make, (_, text, values) = error.__reduce__()
        nearest: MedtError = make(kind, text, values)
        return nearest
    if _is_out_of_memory(error):
        return OutOfMemory("There was not enough memory", remedy="close other programs, or work on a smaller image")
    return MedtError(
        f"Something failed that should not ({type(error).__name__}: {error})",
        remedy="please report it with what you did; nothing you made is lost",
    )


def _is_out_of_memory(error: BaseException) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from napari_medt.engine.ladder import is_out_of_memory

    return is_out_of_memory(error)


def _helpers(function: Any, number: int, cancel: Control, answers: Answers) -> dict[str, Any]:
    """`progress`, `cancel` and `emit` for a method that takes them."""
    last = [0.0]

    def progress(done: int, total: int, message: str = "") -> None:
        now = time.monotonic()
        # Beginnings and ends are always told: a step down when memory runs out is a new beginning.
        if done == 0 or done >= total or now - last[0] >= PROGRESS_EVERY:
            last[0] = now
            answers.send("progress", number, (done, total, message))

    def emit(event: dict[str, Any]) -> None:
        answers.send("event", number, (event,))

    helpers = {"progress": progress, "cancel": cancel, "emit": emit}
    taken = inspect.signature(function).parameters
    return {name: helper for name, helper in helpers.items() if name in taken}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
