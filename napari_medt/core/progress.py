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
