"""Predicting on other computers: blocks of an image go to the workers of a Dask scheduler, and their masks come back.

A worker gets a model once, and the values of the image that a block depends on; no names, no files, no headers. A block that
is lost with its worker is sent again, and what it says does not depend on who computes it.
"""

from __future__ import annotations

import contextlib
import queue
import time
import uuid
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from napari_medt.core import Cancel, ClusterError, ClusterGone, MedtError, Progress, silent
from napari_medt.engine.parcels import ModelParcel, Parcel, cut, windows_in
from napari_medt.engine.results import Results
from napari_medt.engine.scheduler import PATIENCE, connect, look_at_workers, reaching
from napari_medt.engine.windows import Box

if TYPE_CHECKING:
    from distributed import Client, Future

    from napari_medt.engine.planes import Store
    from napari_medt.engine.running import Task

ALONE = 60.0  # seconds without any worker after which a run is given up
EACH = 2  # blocks a worker has at once: one in work, one that has already arrived
LOOK, AGAIN = 0.2, 2.0  # seconds between looks at `cancel`, and questions over the network
Answer = tuple[Results, tuple[str, ...]]


class Cluster:
    """A Dask scheduler and its workers.

    Parameters
    ----------
    address
        Such as `"tcp://host:8786"` or `"tls://host:8786"`. Certificates for the latter come from Dask's own configuration.

    Attributes
    ----------
    client
        Dask's.
    workers
        How many there are.
    notes
        Sentences about workers whose libraries are of other versions than those here.

    Raises
    ------
    ClusterError
        If Dask is not installed, the scheduler does not answer, has no workers, or they have another version of this package.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.client = connect(address)
        try:
            self.workers, self.notes = look_at_workers(self.client, address)
        except BaseException:
            self.close()
            raise
        self._models: dict[str, Future[ModelParcel]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the scheduler; what was sent to the workers is forgotten there."""
        self.close()

    def close(self) -> None:
        """Let go of the scheduler."""
        self.client.close(timeout=PATIENCE)

    def segment(
        self, task: Task, into: Store | None = None, report: Progress = silent, cancel: Cancel | None = None
    ) -> tuple[Results, tuple[str, ...]]:
        """Segment an image.

        Parameters
        ----------
        task
            From `set_up`.
        into, report, cancel
            As of `predict`.

        Returns
        -------
        tuple
            What was found, and sentences for the user.

        Raises
        ------
        ClusterGone
            If the scheduler or all workers are gone.
        ClusterError
            If blocks end their workers again and again.
        Cancelled, OutOfMemory
            As of `predict`.
        """
        card, axes = task.model.card, task.prepared.grid.axes
        results = Results(task.volume.spatial_shape, card, task.settings.wanted, axes=axes, into=into)
        run = _Run(self, task, self._sent(task, report), report, cancel or Cancel())
        notes = dict.fromkeys(self.notes)
        for box, (found, more) in run():
            results.take(box, found)
            notes |= dict.fromkeys(more)
        results.finish()
        return results, tuple(notes)

    def _sent(self, task: Task, report: Progress) -> Future[ModelParcel]:
        """The model as it lies on the workers; each gets it when it first needs it."""
        parcel = ModelParcel.of(task.model)
        if parcel.digest not in self._models:
            report(0, 1, f"Sending {task.model.card.title} to the workers")
            key = f"napari-medt-model-{parcel.digest}"
            self._models[parcel.digest] = _submit(self.client, key, _keep, parcel)
        return self._models[parcel.digest]


def segment_on_cluster(
    task: Task, compute: str | Cluster, into: Store | None, report: Progress, cancel: Cancel | None
) -> tuple[Results, tuple[str, ...]]:
    """Segment an image on a cluster that is open, or is opened for it by its address; as `Cluster.segment`."""
    if isinstance(compute, Cluster):
        return compute.segment(task, into, report, cancel)
    report(0, 1, f"Looking for the scheduler {compute}")
    with Cluster(compute) as cluster:
        return cluster.segment(task, into, report, cancel)


# ------------------------------------------------------------------------------------------------------------- one run


class _Run:
    """The blocks of one image on their way; parameters as of `Cluster.segment`."""

    def __init__(
        self, cluster: Cluster, task: Task, model: Future[ModelParcel], report: Progress, cancel: Cancel
    ) -> None:
        self._client, self._address, self._workers = cluster.client, cluster.address, cluster.workers
        self._task, self._model, self._report, self._cancel = task, model, report, cancel
        self._boxes = cut(task, self._workers)
        self._windows = sum(windows_in(task, box) for box in self._boxes)
        self._id = uuid.uuid4().hex
        self._done = dict.fromkeys(range(len(self._boxes)), 0)  # windows by block
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._looked = self._alone_since = time.monotonic()

    def __call__(self) -> Iterator[tuple[Box, Answer]]:
        """Boxes with what was found in them, in their order."""
        from distributed import Event

        stop = Event(f"napari-medt-stop-{self._id}", client=self._client)
        self._client.subscribe_topic(self._topic, self._hear)
        under_way: dict[int, Future[Answer]] = {}
        answers: dict[int, Answer] = {}
        sent = 0
        try:
            for number, box in enumerate(self._boxes):
                while number not in answers:
                    # What is ahead of the block that is waited for takes memory, so it may not be much.
                    while sent < len(self._boxes) and len(under_way) + len(answers) < self._room():
                        under_way[sent] = self._send(sent)
                        sent += 1
                    if (ended := self._next()) is not None:
                        answers[ended] = _answer(under_way.pop(ended))
                yield box, answers.pop(number)
            self._report(self._windows, self._windows, "Segmented")
        except BaseException:
            with contextlib.suppress(
                OSError, TimeoutError, RuntimeError
            ):  # where the scheduler is gone, nobody hears it
                stop.set()
                self._client.cancel(list(under_way.values()))
            raise
        finally:
            self._client.unsubscribe_topic(self._topic)

    @property
    def _topic(self) -> str:
        return f"napari-medt-{self._id}"

    def _room(self) -> int:
        """How many blocks may be under way, or wait for one before them."""
        return 2 * EACH * self._workers

    def _send(self, number: int) -> Future[Answer]:
        parcel = Parcel.of(self._task, self._boxes[number])
        future = _submit(self._client, f"{self._topic}-{number}", segment_parcel, self._model, parcel, self._id, number)
        future.add_done_callback(lambda ended: self._ended.put(number))
        return future

    def _next(self) -> int | None:
        """A block that has ended; None where there is none for a moment."""
        self._cancel.check()
        self._report(
            sum(self._done.values()),
            self._windows,
            f"Segmenting on {self._workers} other process{'es' * (self._workers > 1)}"
            if self._workers
            else "Waiting for a worker: all are gone",
        )
        with contextlib.suppress(queue.Empty):
            return self._ended.get(timeout=LOOK)
        if time.monotonic() - self._looked > AGAIN:
            self._look()
        return None

    def _look(self) -> None:
        """Whether there are still workers."""
        with reaching(self._address):
            self._workers = len(self._client.nthreads())
        self._looked = time.monotonic()
        if self._workers:
            self._alone_since = self._looked
        elif self._looked - self._alone_since > ALONE:
            raise ClusterGone("All workers are gone", remedy="start them again, then run it again")

    def _hear(self, event: tuple[float, tuple[int, int]]) -> None:
        number, done = event[1]
        self._done[number] = done


def _answer(future: Future[Answer]) -> Answer:
    """What was found in a block."""
    from distributed import KilledWorker

    if future.cancelled():
        raise _gone()
    error = future.exception()
    if error is None:
        answer: Answer = future.result()
        return answer
    if isinstance(error, MedtError):
        raise error
    if isinstance(error, KilledWorker):
        raise ClusterError(
            "A part of the image ended every worker that took it, most likely because their memory ran out",
            remedy="give the workers more memory, or start fewer of them on one computer",
        ) from error
    raise ClusterError(
        f"A worker failed ({type(error).__name__}: {error})", remedy="look at what it printed"
    ) from error


# ---------------------------------------------------------------------------------------------------------- at a worker


class _Stop(Cancel):
    """A request to stop that was made at another computer; asked for now and then."""

    def __init__(self, run: str) -> None:
        from distributed import Event

        super().__init__()
        self._flag, self._asked = Event(f"napari-medt-stop-{run}"), 0.0

    def check(self) -> None:
        """Raise `Cancelled` if a stop was asked for."""
        if time.monotonic() - self._asked > AGAIN:
            self._asked = time.monotonic()
            if self._flag.is_set():
                self.set()
        super().check()


def segment_parcel(model: ModelParcel, parcel: Parcel, run: str, number: int) -> Answer:
    """Segment a block; called at a worker."""
    from distributed import get_worker

    worker, last = get_worker(), 0.0

    def report(done: int, total: int, message: str = "", /) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last > LOOK:
            last = time.monotonic()
            worker.log_event(f"napari-medt-{run}", (number, done))

    return model.work(lambda ready: parcel.open(ready, report, _Stop(run)))


def _keep(parcel: ModelParcel) -> ModelParcel:
    """Have a model lie among the results of the workers, from where each gets it."""
    return parcel


def _submit(client: Client, key: str, function: Callable[..., Any], *parts: Any) -> Future[Any]:
    """Send work whose parts the scheduler keeps until it is done, so that it can be sent again when a worker is lost."""
    import dask

    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
        return client.submit(function, *parts, key=key, pure=False)


def _gone() -> ClusterGone:
    return ClusterGone(
        "The connection to the scheduler was lost", remedy="see whether it still runs, then run it again"
    )
