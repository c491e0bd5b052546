"""From other threads to the window's: callbacks of the calculation process and of file work arrive here in order."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from qtpy.QtCore import QObject, Qt, Signal, Slot

from napari_medt.core import MedtError

log = logging.getLogger(__name__)


class Bridge(QObject):
    """Runs functions on the window's thread, and slow file work on a thread of its own, one after the other."""

    _posted = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._closed = False
        self._posted.connect(self._run, Qt.ConnectionType.QueuedConnection)
        self._aside = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="napari-medt-files")

    def post(self, function: Callable[[], Any]) -> None:
        """Run `function()` on the window's thread, soon; may be called from any thread."""
        if self._closed:
            return
        try:
            self._posted.emit(function)
        except RuntimeError:  # the window was destroyed between the check and the call
            self._closed = True

    @property
    def idle(self) -> bool:
        """Whether all file work that was asked for has ended."""
        return self._aside == 0

    def relay(self, function: Callable[..., Any]) -> Callable[..., None]:
        """Return a function for other threads that runs `function` on the window's."""

        def relayed(*args: Any, **kwargs: Any) -> None:
            self.post(lambda: function(*args, **kwargs))

        return relayed

    def aside(
        self,
        work: Callable[[], Any],
        *,
        then: Callable[[Any], Any] | None = None,
        failed: Callable[[MedtError], Any] | None = None,
    ) -> Future[Any]:
        """Run `work()` off the window's thread, then `then(result)` or `failed(error)` on it."""
        self._aside += 1
        future = self._pool.submit(work)

        def ended() -> None:
            self._aside -= 1

        def done(finished: Future[Any]) -> None:
            self.post(ended)
            if finished.cancelled():
                return
            error = finished.exception()
            if error is None:
                if then is not None:
                    self.post(lambda: then(finished.result()))
                return
            if not isinstance(error, MedtError):
                log.error("work beside the window failed", exc_info=error)
            if failed is not None:
                self.post(lambda: failed(as_medt_error(error)))

        future.add_done_callback(done)
        return future

    def close(self) -> None:
        """Finish the file work that was asked for and deliver nothing more."""
        self._closed = True
        self._pool.shutdown(wait=True)

    @Slot(object)
    def _run(self, function: Callable[[], Any]) -> None:
        if not self._closed:
            function()


def as_medt_error(error: BaseException) -> MedtError:
    """Return an error a user can read."""
    if isinstance(error, MedtError):
        return error
    return MedtError(f"Something unexpected went wrong ({type(error).__name__}: {error})")
