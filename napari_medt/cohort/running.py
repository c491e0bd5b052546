"""Segmenting the cases of a cohort, one after the other or several at once, whatever happens to some of them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from napari_medt.cases.lock import CaseLock
from napari_medt.cohort.listing import Case, files_of
from napari_medt.cohort.manifest import Manifest, Record, digest_of, digest_of_output
from napari_medt.cohort.work import mask_ending
from napari_medt.core import BadImage, Cancel, Cancelled, ClusterGone, MedtError, Progress, StorageError, silent
from napari_medt.engine.process import Call, WorkerProcess
from napari_medt.io.atomic import storage_error
from napari_medt.io.names import common_folder

LANES = 4  # cases at once, at most: each takes a process and the memory of an image here
_LOOK = 0.1  # seconds between looks at `cancel`


@dataclass(frozen=True)
class Outcome:
    """What became of a case in this run: segmented, as it was before, or failed and why."""

    case: str
    state: Literal["done", "unchanged", "failed"]
    reason: str = ""
    mask: Path | None = None


def run_cohort(
    cases: Sequence[Case],
    out: str | os.PathLike[str],
    *,
    model: str,
    device: str = "auto",
    compute: str = "local",
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> tuple[Outcome, ...]:
    """Segment the cases of a cohort and keep a record of it.

    A case that is done stays as it is in a later run, unless its image, the model, the settings or its mask have changed; a
    mask that somebody else changed is kept as `NAME.old1`. A case that fails is set aside with its reason. The work is done
    in processes of their own, so that not even a crash in one case ends the others.

    Parameters
    ----------
    cases
        From `list_cases`.
    out
        Folder for the masks and `manifest.jsonl`; made if it is not there.
    model, device
        As `load_model` takes them.
    compute
        `"local"`, or the address of a Dask scheduler, whose workers then do the work of several cases at once.
    options
        For `predict`: `uncertainty`, `flips`, `plane`, `roi`.
    progress, cancel
        Told how many cases are finished and what is done; looked at all the time.

    Returns
    -------
    tuple of Outcome
        In the order of the cases.

    Raises
    ------
    BadImage
        If two cases want the same file.
    BadModel, DeviceError, MedtError
        If the model cannot be loaded, or the scheduler does not answer.
    StorageError
        If the folder cannot be written, or another run is at work in it.
    ClusterGone
        If the scheduler or all its workers are lost; what is finished stays, and the other cases stay open for a later run.
    Cancelled
        If `cancel` was set; what is finished stays.
    """
    folder = Path(out).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder, doing="made") from error
    with _alone_in(folder):
        run = _Run(cases, folder, model, device, compute, dict(options or {}), progress or silent, cancel or Cancel())
        return run()


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    lock = CaseLock(folder / ".lock")
    if not lock.acquire():
        raise StorageError(f"Another run is at work in {folder}", remedy="wait until it has finished")
    try:
        yield
    finally:
        lock.release()


class _Run:
    """One run over a cohort; parameters as of `run_cohort`."""

    def __init__(
        self,
        cases: Sequence[Case],
        folder: Path,
        model: str,
        device: str,
        compute: str,
        options: dict[str, Any],
        progress: Progress,
        cancel: Cancel,
    ) -> None:
        self._cases, self._folder, self._options = tuple(cases), folder, options
        self._where: dict[str, Any] = {"model": model, "device": device, "compute": compute}
        self._progress, self._cancel = progress, cancel
        self._manifest = Manifest(folder)
        self._home = common_folder([case.image for case in cases])
        self._masks = _mask_places(cases, folder)
        self._lock = threading.Lock()
        self._left = iter(cases)
        self._found: dict[str, Outcome] = {}
        self._key = self._weights = ""
        self._fatal: BaseException | None = None

    def __call__(self) -> tuple[Outcome, ...]:
        workers = [WorkerProcess("napari_medt.cohort.work:Work")]
        try:
            self._progress(0, len(self._cases), "Loading the model")
            self._key, self._weights, count = self._wait(workers[0].call("open", *self._where.values()))
            lanes = max(1, min(count, LANES, len(self._cases)))
            workers += [WorkerProcess("napari_medt.cohort.work:Work") for _ in range(lanes - 1)]
            with ThreadPoolExecutor(lanes) as pool:
                list(pool.map(self._lane, workers))
        finally:
            for worker in workers:
                worker.close()
        if isinstance(self._fatal, ClusterGone):
            done, all_cases = len(self._found), len(self._cases)
            raise ClusterGone(
                f"{self._fatal.what}; {done} of {all_cases} cases are finished and stay",
                remedy="start it again, then run the same command for the others",
            ) from self._fatal
        if self._fatal is not None:
            raise self._fatal
        self._manifest.tidy()
        return tuple(self._found[case.name] for case in self._cases)

    def _lane(self, worker: WorkerProcess) -> None:
        """Take case after case, until there is none left or nothing more can be written down."""
        while True:
            with self._lock:
                case = None if self._fatal else next(self._left, None)
            if case is None:
                return
            try:
                outcome = self._one(case, worker)
            except BaseException as error:  # noqa: BLE001  (raised again by the thread that waits for the lanes)
                with self._lock:
                    self._fatal = self._fatal or error
                return
            with self._lock:
                self._found[case.name] = outcome
            self._say(case, outcome.state)

    def _one(self, case: Case, worker: WorkerProcess) -> Outcome:
        self._cancel.check()
        began, mask = time.monotonic(), self._masks[case.name]
        settings = {"choose": list(case.choose), "mask": _below(mask, self._folder)} | _plain(self._options)
        if case.files:  # the key of a series is an identifier, and the digest tells series apart
            settings["choose"] = []
        self._say(case, "looking whether it is done")
        content, before = _digest_of_image(case), self._manifest.get(case.name)
        intact = before is not None and all(
            digest_of_output(self._folder / path) == digest for path, digest in before.outputs.items()
        )
        if before is not None and intact and content and before.is_of(content, self._weights, settings):
            return Outcome(case.name, "unchanged", mask=mask)
        ours = list(before.outputs.values()) if before else []
        call = worker.call(
            "segment",
            (case.image, *case.channels),
            mask,
            **self._where,
            choose=case.choose,
            options=self._options,
            ours=ours,
            on_progress=lambda done, total, message: self._say(case, message),
        )
        files: dict[Path, str] = {}
        notes, reason = (), ""
        try:
            files, notes = self._wait(call)
        except (Cancelled, ClusterGone):  # no fault of the case, which stays open
            raise
        except MedtError as error:
            reason = str(error)
        record = Record(
            case=case.name,
            image=os.path.relpath(case.image, self._home),
            image_sha256=content,
            model=self._key,
            model_sha256=self._weights,
            settings=settings,
            state="failed" if reason else "done",
            outputs={_below(path, self._folder): digest for path, digest in files.items()},
            reason=reason,
            notes=list(notes),
            seconds=round(time.monotonic() - began, 1),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            version=_version(),
        )
        with self._lock:
            self._manifest.add(record)
        return Outcome(case.name, "failed", reason) if reason else Outcome(case.name, "done", mask=mask)

    def _wait(self, call: Call) -> Any:
        """The answer of a process, which is told when the user wants to stop."""
        while True:
            try:
                return call.result(_LOOK)
            except TimeoutError:
                if self._cancel.is_set() or self._fatal is not None:
                    call.cancel()

    def _say(self, case: Case, message: str) -> None:
        with self._lock:
            self._progress(len(self._found), len(self._cases), f"{case.name}: {message}")


def _mask_places(cases: Sequence[Case], folder: Path) -> dict[str, Path]:
    """Where the mask of each case goes.

    Raises
    ------
    BadImage
        If two go to the same file, or one would overwrite an image.
    """
    places = {case.name: folder / (case.mask or f"{case.name}_mask{mask_ending(case.image)}") for case in cases}
    images = {image for case in cases for image in (case.image, *case.channels)}
    taken: dict[str, str] = {}
    for name, place in places.items():
        if place in images:
            raise BadImage(f"The mask of {name} would overwrite the image {place}", remedy="choose another folder")
        other = taken.setdefault(str(place).casefold(), name)
        if other != name:
            raise BadImage(f"The masks of {other} and {name} would go to the same file", remedy="name them differently")
    return places


def _digest_of_image(case: Case) -> str:
    """Digest of what a case is read from; empty where that cannot be read, which the reading itself will tell."""
    try:
        return digest_of(files_of(case), home=case.image if case.image.is_dir() else None)
    except OSError:
        return ""


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON gives them back."""
    plain = dict(options)
    if plain.get("roi") is not None:
        plain["roi"] = [[part.start, part.stop] if isinstance(part, slice) else part for part in plain["roi"]]
    return plain


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _version() -> str:
    from napari_medt import __version__

    return __version__
