"""The child's side of `WorkerProcess`."""

from __future__ import annotations

import inspect
import os
import queue
import sys
import threading
import time
import traceback
from importlib import import_module
from typing import Any, BinaryIO

from napari_medt.core import Cancel, Cancelled, MedtError
from napari_medt.engine import frames

PROGRESS_EVERY = 0.04  # seconds; more often would only keep the window busy


class _Answers:
    """Sends messages to the parent, one at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def send(self, *message: Any) -> None:
        with self._lock:
            try:
                frames.send(self._stream, message)
            except BrokenPipeError:
                os._exit(0)


def main(target: str, nice: int) -> None:
    """Answer calls until the parent closes the pipe."""
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not mix with the answers
    if hasattr(os, "nice"):
        os.nice(nice)
    answers = _Answers(stream)
    calls: queue.SimpleQueue[tuple[int, str, tuple[Any, ...], dict[str, Any]]] = queue.SimpleQueue()
    cancels: dict[int, Cancel] = {}
    threading.Thread(target=_listen, args=(calls, cancels), daemon=True).start()
    thing: Any = None
    while True:
        number, method, args, kwargs = calls.get()
        try:
            if thing is None:
                module, _, name = target.partition(":")
                thing = getattr(import_module(module), name)()
            cancels[number].check()
            function = getattr(thing, method)
            answers.send("result", number, function(*args, **kwargs, **_helpers(function, number, cancels, answers)))
        except MedtError as error:
            remedy = "" if isinstance(error, Cancelled) else error.remedy
            answers.send("error", number, _kind(error), error.what, remedy, traceback.format_exc())
        except MemoryError:
            answers.send(
                "error",
                number,
                "OutOfMemory",
                "There was not enough memory",
                "close other programs",
                traceback.format_exc(),
            )
        except Exception as error:  # noqa: BLE001  (the parent must get an answer, whatever happens)
            what = f"Something failed that should not ({type(error).__name__}: {error})"
            remedy = "please report it with what you did; nothing you made is lost"
            answers.send("error", number, "MedtError", what, remedy, traceback.format_exc())
        finally:
            del cancels[number]


def _kind(error: MedtError) -> str:
    """The nearest error class of `core`, since others may not be known to the parent."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "napari_medt.core.errors")


def _listen(calls: queue.SimpleQueue[Any], cancels: dict[int, Cancel]) -> None:
    stream = os.fdopen(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    while True:
        try:
            kind, number, *content = frames.receive(stream)
        except (EOFError, OSError):
            os._exit(0)  # the window has gone, whatever is being calculated
        if kind == "call":
            cancels[number] = Cancel()
            calls.put((number, *content))
        elif number in cancels:
            cancels[number].set()


def _helpers(function: Any, number: int, cancels: dict[int, Cancel], answers: _Answers) -> dict[str, Any]:
    """`progress`, `cancel` and `emit` for a method that takes them."""
    last = [0.0]

    def progress(done: int, total: int, message: str = "") -> None:
        now = time.monotonic()
        if done >= total or now - last[0] >= PROGRESS_EVERY:
            last[0] = now
            answers.send("progress", number, done, total, message)

    def emit(event: dict[str, Any]) -> None:
        answers.send("event", number, event)

    helpers = {"progress": progress, "cancel": cancels[number], "emit": emit}
    taken = inspect.signature(function).parameters
    return {name: helper for name, helper in helpers.items() if name in taken}
