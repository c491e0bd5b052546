"""A process of its own for calculations, so that the window never waits for them.

Importing torch holds Python's interpreter lock for about half a second, and a shared interpreter stutters while a network
runs. A child process has its own lock, gives all memory back when it ends, and cannot take the window down with it.

    worker = WorkerProcess("package.module:Class")
    call = worker.call("method", 1, 2, on_progress=show)
    call.result()
"""

from __future__ import annotations

import atexit
import os
import queue
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from napari_medt.core import MedtError
from napari_medt.core import errors as known_errors
from napari_medt.engine import frames

OnProgress = Callable[[int, int, str], None]
OnEvent = Callable[[dict[str, Any]], None]


class Call:
    """A method call on its way; its callbacks come on the thread that reads the child's answers."""

    def __init__(
        self, number: int, worker: WorkerProcess, on_progress: OnProgress | None, on_event: OnEvent | None
    ) -> None:
        self._number, self._worker = number, worker
        self.on_progress, self.on_event = on_progress, on_event
        self._finished = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Call], None]] = []
        self._value: Any = None
        self._error: MedtError | None = None

    @property
    def done(self) -> bool:
        """Whether the answer or an error has come."""
        return self._finished.is_set()

    def cancel(self) -> None:
        """Ask the method to stop; the call then fails with `Cancelled`."""
        if not self.done:
            self._worker._send(("cancel", self._number))

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the answer, at most `timeout` seconds; raises what the method raised."""
        if not self._finished.wait(timeout):
            raise TimeoutError("the calculation has not ended yet")
        if self._error is not None:
            raise self._error
        return self._value

    def add_done_callback(self, function: Callable[[Call], None]) -> None:
        """Call `function(call)` when the call has ended, at once if it has."""
        with self._lock:
            if not self.done:
                self._callbacks.append(function)
                return
        function(self)

    def _end(self, value: Any = None, error: MedtError | None = None) -> None:
        with self._lock:
            if self.done:
                return
            self._value, self._error = value, error
            self._finished.set()
            callbacks, self._callbacks = self._callbacks, []
        for function in callbacks:
            function(self)


class WorkerProcess:
    """Runs the methods of one object in a child process, one after the other.

    Parameters
    ----------
    target
        `"module:callable"`; the child calls it once and keeps what it returns. Of the object's methods, those that take
        `progress`, `cancel` or `emit` get a callable, a `Cancel` and a callable that takes a dictionary.
    nice
        Added to the child's niceness, where the system knows that, so that the window comes first.
    """

    def __init__(self, target: str, *, nice: int = 5) -> None:
        self._target, self._nice = target, nice
        self._process: subprocess.Popen[bytes] | None = None
        self._calls: dict[int, Call] = {}
        self._count = 0
        self._lock = threading.Lock()
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._log: Any = None
        _WORKERS.add(self)

    def start(self) -> None:
        """Start the child if it does not run."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
            environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
            # Idle threads that spin for their next turn make torch many times slower wherever the window, or anything
            # else, wants a core too.
            environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, self._target, str(self._nice)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                bufsize=0,
            )
            self._outbox = queue.SimpleQueue()
            for loop, pipe in ((self._write, self._process.stdin), (self._read, self._process.stdout)):
                threading.Thread(target=loop, args=(self._process, pipe, self._outbox), daemon=True).start()

    def call(
        self,
        method: str,
        *args: Any,
        on_progress: OnProgress | None = None,
        on_event: OnEvent | None = None,
        **kwargs: Any,
    ) -> Call:
        """Ask for `method(*args, **kwargs)`; returns at once. Arrays must not be changed before the call has ended."""
        self.start()
        with self._lock:
            self._count += 1
            call = Call(self._count, self, on_progress, on_event)
            self._calls[self._count] = call
        self._send(("call", call._number, method, args, kwargs))
        return call

    @property
    def pid(self) -> int | None:
        """Process number of the child, if it was started."""
        return self._process.pid if self._process is not None else None

    def close(self) -> None:
        """End the child; calls under way fail."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self._fail_all("The calculation was ended")

    def _send(self, message: Any) -> None:
        self._outbox.put(message)

    def _write(self, process: subprocess.Popen[bytes], pipe: BinaryIO, outbox: queue.SimpleQueue[Any]) -> None:
        while process.poll() is None:
            try:
                message = outbox.get(timeout=1)
            except queue.Empty:
                continue
            try:
                frames.send(pipe, message)
            except OSError:  # the child has gone; the reading thread says so
                return
            except Exception as error:  # noqa: BLE001  (whatever cannot be pickled)
                if call := self._calls.pop(message[1], None):
                    call._end(error=MedtError(f"The question could not be sent to the calculation ({error})"))

    def _read(self, process: subprocess.Popen[bytes], pipe: BinaryIO, outbox: queue.SimpleQueue[Any]) -> None:
        while True:
            try:
                kind, number, *content = frames.receive(pipe)
            except (EOFError, OSError):
                break
            call = self._calls.get(number)
            if call is None:
                continue
            if kind == "progress" and call.on_progress is not None:
                call.on_progress(*content)
            elif kind == "event" and call.on_event is not None:
                call.on_event(*content)
            elif kind in ("result", "error"):
                del self._calls[number]
                if kind == "result":
                    call._end(content[0])
                else:
                    call._end(error=_rebuild(*content))
        code = process.wait()
        if process is self._process:
            self._fail_all(
                f"The calculation stopped unexpectedly (exit code {code}), probably because memory ran out",
                remedy="nothing you made is lost: close other programs and run it again, on a smaller image if need be",
                details=self._tail(),
            )

    def _tail(self) -> str:
        """The last lines the child wrote, for a bug report."""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 4000))
        return cast("bytes", self._log.read()).decode(errors="replace")

    def _fail_all(self, what: str, *, remedy: str = "", details: str = "") -> None:
        with self._lock:
            calls, self._calls = list(self._calls.values()), {}
        for call in calls:
            call._end(error=_rebuild("MedtError", what, remedy, details))


_WORKERS: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for worker in list(_WORKERS):
        worker.close()


def _rebuild(kind: str, what: str, remedy: str, details: str) -> MedtError:
    """An error as it was raised in the child, with the child's traceback in `details`."""
    error: MedtError
    if kind == "Cancelled":
        error = known_errors.Cancelled(what)
    else:
        made = getattr(known_errors, kind, MedtError)
        error = made(what, remedy=remedy)
    error.details = details  # type: ignore[attr-defined]
    return error


if __name__ == "__main__":
    from napari_medt.engine.child import main

    main(sys.argv[1], int(sys.argv[2]))
