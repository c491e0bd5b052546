"""Progress and cancel as plain objects: the rooms take them, the widgets and the shell translate them."""

from __future__ import annotations

import threading
from typing import Protocol

from napari_medt.core.errors import Cancelled


class Progress(Protocol):
    """Anything that can be told how far a job is; called from the job's own thread."""

    def __call__(self, done: int, total: int, message: str = "", /) -> None:
        """Report that `done` of `total` steps are finished; `message` is plain English."""


def silent(done: int, total: int, message: str = "", /) -> None:
    """Report to nobody: the progress of callers who asked for none."""


class Cancel:
    """A request to stop, set by one thread and looked at by another.

    Examples
    --------
    >>> cancel = Cancel()
    >>> cancel.check()
    >>> cancel.set()
    >>> cancel.is_set()
    True
    """

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask the job to stop at its next step."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether a stop was asked for."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Cancelled` if a stop was asked for."""
        if self._event.is_set():
            raise Cancelled


class Control(Cancel):
    """A request to pause, to go on, or to stop with what there is, beside the request to cancel.

    Examples
    --------
    >>> control = Control()
    >>> control.stop()
    >>> control.wait()
    >>> control.is_stopped()
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self._going, self._stopped = threading.Event(), threading.Event()
        self._going.set()

    def set(self) -> None:
        """Cancel, also while paused."""
        super().set()
        self._going.set()

    def pause(self) -> None:
        """Ask the job to wait at its next step."""
        self._going.clear()

    def go_on(self) -> None:
        """End a pause."""
        self._going.set()

    def stop(self) -> None:
        """Ask the job to end at its next step and keep the best it has."""
        self._stopped.set()
        self._going.set()

    def is_paused(self) -> bool:
        """Whether the job is to wait."""
        return not self._going.is_set()

    def is_stopped(self) -> bool:
        """Whether the job is to end and keep what it has."""
        return self._stopped.is_set()

    def wait(self) -> None:
        """Wait while paused; raise `Cancelled` if a cancel was asked for."""
        self._going.wait()
        self.check()
