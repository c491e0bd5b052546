"""The parent's side of the calculation process: one run of the child, and the calls it owes an answer to."""

from __future__ import annotations

import itertools
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from napari_medt.core import MedtError
from napari_medt.engine import frames

OnProgress = Callable[[int, int, str], None]
OnEvent = Callable[[dict[str, Any]], None]
TAIL = 4000  # bytes of the child's log that go with an error

log = logging.getLogger(__name__)


class Call:
    """A method call on its way; its callbacks come on the thread that reads the child's answers."""

    def __init__(
        self, tell: Callable[[str], None], on_progress: OnProgress | None = None, on_event: OnEvent | None = None
    ) -> None:
        self._tell = tell
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
        """Ask the method to stop; the call then fails with `Cancelled`, unless the answer is already on its way."""
        self._ask_to("cancel")

    def pause(self) -> None:
        """Ask the method to wait; only those that look at more than a cancel do."""
        self._ask_to("pause")

    def go_on(self) -> None:
        """End a pause."""
        self._ask_to("go on")

    def stop(self) -> None:
        """Ask the method to end with the best it has; only those that look at more than a cancel do."""
        self._ask_to("stop")

    def _ask_to(self, wish: str) -> None:
        if not self.done:
            self._tell(wish)

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

    @classmethod
    def failed(cls, error: MedtError) -> Call:
        """A call that could not even be sent."""
        call = cls(lambda wish: None)
        call.end(error=error)
        return call

    def end(self, value: Any = None, *, error: MedtError | None = None) -> None:
        """Take the answer and call back; a second answer is ignored."""
        with self._lock:
            if self.done:
                return
            self._value, self._error = value, error
            self._finished.set()
            callbacks, self._callbacks = self._callbacks, []
        for function in callbacks:
            _tell(function, self)


class Connection:
    """One run of the child process; parameters as of `WorkerProcess`.

    Raises
    ------
    MedtError
        If the system starts no process.
    """

    def __init__(self, target: str, nice: int, threads: int | None) -> None:
        paths = os.pathsep.join(dict.fromkeys(os.path.abspath(path) for path in sys.path))
        environment = dict(os.environ, PYTHONPATH=paths)
        # Idle threads that spin for their next turn make torch many times slower wherever the window, or anything
        # else, wants a core too.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if threads is not None:
            environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by the reading thread, which ends last)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "napari_medt.engine.child", target, str(nice)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                bufsize=0,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            self._log.close()
            raise MedtError(
                f"The system could not start the calculation process ({error})",
                remedy="close other programs and try again",
            ) from error
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._closed = False
        self._outbox: queue.SimpleQueue[tuple[str, int, Any] | None] = queue.SimpleQueue()
        for loop, pipe in ((self._write, self._process.stdin), (self._read, self._process.stdout)):
            threading.Thread(target=loop, args=(pipe,), daemon=True, name=f"napari-medt{loop.__name__}").start()

    @property
    def pid(self) -> int:
        """Process number of the child."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child runs and can be asked."""
        return not self._closed and self._process.poll() is None

    def ask(self, question: Any, on_progress: OnProgress | None, on_event: OnEvent | None) -> Call | None:
        """Send `(method, args, kwargs)` to the child; None where it has ended meanwhile."""
        number = next(self._numbers)
        call = Call(lambda wish: self._outbox.put((wish, number, None)), on_progress, on_event)
        with self._lock:
            if self._closed:
                return None
            self._calls[number] = call
        self._outbox.put(("call", number, question))
        return call

    def close(self) -> None:
        """End the child; its calls fail."""
        self._fail_all(MedtError("The calculation was ended"))
        self._process.kill()
        self._process.wait()

    def _write(self, pipe: BinaryIO) -> None:
        """Thread that sends questions, so that asking never waits for a full pipe."""
        with pipe:
            while (message := self._outbox.get()) is not None:
                kind, number, content = message
                try:
                    frames.send(pipe, kind, number, content)
                except OSError:  # the child has gone; the reading thread says so
                    return
                except Exception as error:  # noqa: BLE001  (whatever cannot be pickled)
                    self._end(number, error=MedtError(f"The question could not be sent to the calculation ({error})"))

    def _read(self, pipe: BinaryIO) -> None:
        """Thread that receives answers until the child is gone."""
        with pipe, self._log:
            while True:
                try:
                    frame = frames.receive(pipe)
                except (EOFError, OSError, MemoryError):
                    break
                self._take(frame)
            self._process.kill()  # where it only closed its pipe, or sent more than there is memory for
            self._fail_all(_last_words(self._process.wait(), self._tail()))
            self._outbox.put(None)

    def _take(self, frame: frames.Frame) -> None:
        try:
            content = frame.unpack()
        except Exception as error:  # noqa: BLE001  (whatever cannot be unpickled here)
            self._end(frame.number, error=MedtError(f"The answer of the calculation could not be read ({error})"))
            return
        call = self._calls.get(frame.number)
        if frame.kind == "result":
            self._end(frame.number, content)
        elif frame.kind == "error":
            self._end(frame.number, error=_with_details(*content))
        elif call is not None and (told := call.on_progress if frame.kind == "progress" else call.on_event):
            _tell(told, *content)

    def _end(self, number: int, value: Any = None, *, error: MedtError | None = None) -> None:
        with self._lock:
            call = self._calls.pop(number, None)
        if call is not None:
            call.end(value, error=error)

    def _fail_all(self, error: MedtError) -> None:
        with self._lock:
            self._closed = True
            calls, self._calls = self._calls, {}
        for call in calls.values():
            call.end(error=error)

    def _tail(self) -> str:
        """The last lines the child wrote, for a bug report."""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - TAIL))
        return self._log.read().decode(errors="replace")


def _tell(function: Callable[..., Any], *content: Any) -> None:
    """Call back; an error in there must not end the thread that all other calls wait for."""
    try:
        function(*content)
    except Exception:
        log.exception("a callback of the calculation process failed")


def _last_words(code: int, tail: str) -> MedtError:
    """Why a child that died probably did."""
    remedy = "nothing you made is lost: run it again"
    if code == -getattr(signal, "SIGKILL", 9):
        cause = ", probably because memory ran out"
        remedy = "nothing you made is lost: close other programs and run it again, on a smaller image if need be"
    elif code < 0:
        cause = f" (signal {-code}), by a fault in one of its libraries"
    else:
        lines = tail.strip().splitlines()
        cause = f" (exit code {code}{': ' + lines[-1] if lines else ''})"
    return _with_details(MedtError(f"The calculation stopped unexpectedly{cause}", remedy=remedy), tail)


def _with_details(error: MedtError, details: str) -> MedtError:
    """An error from the child, with the child's traceback or last words in `details`."""
    error.details = details  # type: ignore[attr-defined]
    return error
