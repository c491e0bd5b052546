"""The window's side of the calculation process: sends a picture once, asks, and delivers the answer on the window's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from napari_medt.core import Cancelled, MedtError
from napari_medt.widgets.bridge import Bridge, as_medt_error
from napari_medt.widgets.layers import Picture
from napari_medt.widgets.session import MISSING

TARGET = "napari_medt.widgets.teaching:TeachingSession"


class Call(Protocol):
    """A question on its way."""

    def cancel(self) -> None:
        """Ask it to stop."""

    def pause(self) -> None:
        """Ask it to wait."""

    def go_on(self) -> None:
        """End a pause."""

    def stop(self) -> None:
        """Ask it to end with the best it has."""

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the answer."""

    def add_done_callback(self, function: Callable[[Any], None], /) -> None:
        """Call `function(call)` when the answer is there."""


class Worker(Protocol):
    """A process that answers questions; `engine.process.WorkerProcess` is one."""

    def start(self) -> None:
        """Start the process."""

    def call(self, method: str, *args: Any, **kwargs: Any) -> Call:
        """Ask a question."""

    def close(self) -> None:
        """End the process."""


class Job:
    """One question with all that belongs to it; its callbacks come on the window's thread."""

    def __init__(
        self,
        then: Callable[[Any], Any] | None,
        failed: Callable[[MedtError], Any] | None,
        finished: Callable[[], Any] | None,
    ) -> None:
        self.cancelled = False
        self.paused = False
        self.stopped = False
        self.done = False
        self._then, self._failed, self._finished = then, failed, finished
        self._call: Call | None = None

    def cancel(self) -> None:
        """Ask the job to stop; `failed` is told when it has."""
        self.cancelled = True
        if self._call is not None:
            self._call.cancel()

    def pause(self, paused: bool) -> None:
        """Ask the job to wait, or to go on."""
        self.paused = paused
        if self._call is not None:
            self._call.pause() if paused else self._call.go_on()

    def stop(self) -> None:
        """Ask the job to end with the best it has; `then` gets that."""
        self.stopped = True
        if self._call is not None:
            self._call.stop()

    def bind(self, call: Call) -> None:
        """Take note of the call that is under way, and tell it what was asked meanwhile."""
        self._call = call
        for asked, tell in ((self.cancelled, call.cancel), (self.paused, call.pause), (self.stopped, call.stop)):
            if asked:
                tell()

    def deliver(self, result: Any) -> None:
        """Hand over the answer."""
        self._end(self._then, result)

    def fail(self, error: MedtError) -> None:
        """Hand over the error."""
        self._end(self._failed, error)

    def _end(self, callback: Callable[[Any], Any] | None, value: Any) -> None:
        if self.done:
            return
        self.done = True
        try:
            if self._finished is not None:
                self._finished()
        finally:
            if callback is not None:
                callback(value)


class Client:
    """Asks the session about pictures; a picture travels only when the session does not have it yet."""

    def __init__(self, bridge: Bridge, worker: Worker | None = None) -> None:
        self._bridge = bridge
        self._worker = worker
        self._started = False

    @property
    def worker(self) -> Worker:
        """The process, made when it is first needed."""
        if self._worker is None:
            from napari_medt.engine.process import WorkerProcess

            self._worker = WorkerProcess(TARGET)
        return self._worker

    def start(self, *, then: Callable[[dict[str, Any]], Any], failed: Callable[[MedtError], Any]) -> None:
        """Start the process and let it load what is slow to load; `then` learns which devices there are."""
        if self._started:
            return
        self._started = True

        def starting() -> None:
            self.worker.start()

        def started(_: Any) -> None:
            self.ask("warm_up", then=then, failed=failed)

        self._bridge.aside(starting, then=started, failed=failed)

    def ask(
        self,
        method: str,
        *args: Any,
        picture: Picture | None = None,
        then: Callable[[Any], Any] | None = None,
        failed: Callable[[MedtError], Any] | None = None,
        finished: Callable[[], Any] | None = None,
        on_progress: Callable[[int, int, str], Any] | None = None,
        on_event: Callable[[dict[str, Any]], Any] | None = None,
        **options: Any,
    ) -> Job:
        """Ask the session.

        Parameters
        ----------
        method, *args, **options
            Of `Session`; with a `picture`, its token goes first.
        picture
            Sent if the session says that it does not have it.
        then, failed, finished
            Called on the window's thread with the answer, with the error, and in both cases first.
        on_progress, on_event
            Called on the window's thread while the job runs.
        """
        job = Job(then, failed, finished)
        if on_progress is not None:
            options["on_progress"] = self._bridge.relay(on_progress)
        if on_event is not None:
            options["on_event"] = self._bridge.relay(on_event)
        arguments = args if picture is None else (picture.token, *args)

        def send(*, retry: bool) -> None:
            if job.cancelled:
                job.fail(Cancelled())
                return
            self._call(job, method, arguments, options, lambda result: answered(result, retry=retry))

        def answered(result: Any, *, retry: bool) -> None:
            if not (isinstance(result, str) and result == MISSING):
                job.deliver(result)
            elif picture is None or not retry:
                job.fail(MedtError("The calculation process lost the picture", remedy="run again"))
            else:
                self._bridge.aside(picture.load, then=loaded, failed=job.fail)

        def loaded(volume: Any) -> None:
            assert picture is not None
            scan = {} if picture.scan is None else {"scan": picture.scan}
            self._call(job, "put_image", (picture.token, volume, picture.fixes), scan, lambda _: send(retry=False))

        send(retry=True)
        return job

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.close()

    def _call(
        self, job: Job, method: str, arguments: tuple[Any, ...], options: dict[str, Any], then: Callable[[Any], Any]
    ) -> None:
        def done(call: Call) -> None:
            try:
                result = call.result()
            except Exception as error:  # noqa: BLE001 - whatever went wrong over there is told to the user
                failure = as_medt_error(error)
                self._bridge.post(lambda: job.fail(failure))
            else:
                self._bridge.post(lambda: then(result))

        try:
            call = self.worker.call(method, *arguments, **options)
        except MedtError as error:
            failure = error
            self._bridge.post(lambda: job.fail(failure))
            return
        job.bind(call)
        call.add_done_callback(done)
