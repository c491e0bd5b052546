"""A process of its own for calculations, so that the window never waits for them.

Importing torch holds Python's interpreter lock for about half a second, and a shared interpreter stutters while a network
runs. A child process has its own lock, gives all memory back when it ends, and cannot take the window down with it.

    worker = WorkerProcess("package.module:Class")
    call = worker.call("method", 1, 2, on_progress=show)
    call.result()
"""

from __future__ import annotations

import atexit
import threading
import weakref
from typing import Any

from napari_medt.core import MedtError
from napari_medt.engine.connection import Call, Connection, OnEvent, OnProgress

__all__ = ["Call", "WorkerProcess"]


class WorkerProcess:
    """Runs the methods of one object in a child process, one after the other.

    The child is started by the first call, and again by the first call after it died. It ends with this process, however
    this process ends.

    Parameters
    ----------
    target
        `"module:callable"`; the child calls it once and keeps what it returns. Of the object's methods, those that take
        `progress`, `cancel` or `emit` get a callable, a `Cancel` and a callable that takes a dictionary.
    nice
        Added to the child's niceness, where the system knows that, so that the window comes first.
    threads
        For torch and numpy in the child; by default as many as they choose, one for each core.
    """

    def __init__(self, target: str, *, nice: int = 5, threads: int | None = None) -> None:
        self._target, self._nice, self._threads = target, nice, threads
        self._child: Connection | None = None
        self._lock = threading.Lock()
        _WORKERS.add(self)

    def start(self) -> None:
        """Start the child if it does not run.

        Raises
        ------
        MedtError
            If the system starts no process.
        """
        with self._lock:
            self._running()

    def call(
        self,
        method: str,
        *args: Any,
        on_progress: OnProgress | None = None,
        on_event: OnEvent | None = None,
        **kwargs: Any,
    ) -> Call:
        """Ask for `method(*args, **kwargs)`; returns at once. Arrays must not be changed before the call has ended.

        Whatever goes wrong is raised by `Call.result` as a `MedtError` of the type it had in the child, with the child's
        traceback or last words in its attribute `details`.
        """
        try:
            while True:
                with self._lock:
                    child = self._running()
                if call := child.ask((method, args, kwargs), on_progress, on_event):
                    return call
        except MedtError as error:
            return Call.failed(error)

    @property
    def pid(self) -> int | None:
        """Process number of the child, if it was started."""
        return self._child.pid if self._child is not None else None

    def close(self) -> None:
        """End the child; calls under way fail."""
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.close()

    def _running(self) -> Connection:
        if self._child is None or not self._child.alive:
            self._child = Connection(self._target, self._nice, self._threads)
        return self._child


_WORKERS: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for worker in list(_WORKERS):
        worker.close()
