"""Segmenting an image of any size by overlapping windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, get_args

import numpy.typing as npt
import torch

from napari_medt.core import BadImage, Cancel, OutOfMemory, Prediction, Progress, Volume, silent
from napari_medt.engine.blocks import Settings, segment_block
from napari_medt.engine.ladder import Effort, free_cached, is_out_of_memory, steps_down
from napari_medt.engine.pieces import leave_out_strays
from napari_medt.engine.planes import Plane, Roi, Store, common_box, plane_axes, region
from napari_medt.engine.prepare import Prepared, fit
from napari_medt.engine.results import Results, Uncertainty, Wanted, check_room
from napari_medt.engine.rows import in_rows
from napari_medt.engine.testtime import check_dropout
from napari_medt.engine.windows import Blending, Box

if TYPE_CHECKING:
    from napari_medt.engine.cluster import Cluster
    from napari_medt.zoo.card import ModelCard
    from napari_medt.zoo.model import Model

BATCH = {"cpu": 4, "cuda": 16, "mps": 8}  # windows of 128 x 128 pixels in one pass, fewer of larger ones
SMALLEST_WINDOW = 32
Made = TypeVar("Made")


def predict(
    model: Model,
    image: Volume | npt.ArrayLike,
    *,
    uncertainty: bool | Uncertainty = False,
    probabilities: bool = False,
    batch: int | None = None,
    overlap: float | None = None,
    roi: Roi | None = None,
    plane: Plane | None = None,
    flips: bool = False,
    blending: Blending = "smooth",
    into: Store | None = None,
    compute: str | Cluster = "local",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Prediction:
    """Segment an image.

    Windows overlap and are blended with Gaussian weights; what no later window reaches is reduced to labels at once, so that
    memory does not grow with the number of classes times the image. When memory runs out, less is tried step by step, and the
    result's notes say so.

    Parameters
    ----------
    model
        From `load_model`.
    image
        A `Volume`, possibly of a lazily loaded array, which is read row by row of windows; or an array as
        `Volume.from_array` takes it. A scan is segmented slice by slice by a 2D model.
    uncertainty
        Keep, in [0, 1], the `"entropy"` of the class probabilities over its maximum (also `True`); the `"margin"`, one minus
        the distance between the two likeliest classes; or how much several passes disagree (mutual information), either over
        mirror images, `"flips"`, or over passes with `"dropout"`. The last two also make the mask from the mean of the passes.
    probabilities
        Keep the class probabilities.
    batch
        Windows in one pass; by default 4 on the processor, 16 on CUDA, 8 on Apple's GPU, fewer where windows are larger than
        128 x 128 pixels. Does not change the result.
    overlap
        Share of a window that neighbours have in common, in [0, 1); by default as in `plan_windows`.
    roi
        Slices in the axes of the image, or indices of single slices: only there it is segmented, as it would be in the whole
        image; elsewhere the result is 0.
    plane
        Of the slices for a 2D model, `"axial"`, `"coronal"` or `"sagittal"`, of the patient or else of the axes `(z, y, x)`;
        by default that in which the scan was acquired, see `planes.acquired_plane`, and elsewhere the first axis counts
        slices.
    flips
        Take the mean over all mirror images: four times the work in 2D, eight times in 3D.
    blending
        `"smooth"`, or `"monai"` for the very weights and padding of MONAI's `sliding_window_inference(mode="gaussian")`.
    into
        Takes the labels instead of memory, such as a mask begun by `io.create_zarr_labels`, which is for the caller to finish.
        Of structures that overlap, it gets the last at each place.
        Its `discard()`, where it has one, is called when the run fails or is cancelled. Like a region, it keeps parts that lie
        apart from structures that come in one piece by the card.
    compute
        `"local"`; or the address of a Dask scheduler, such as `"tcp://host:8786"`, or an open `engine.cluster.Cluster`, whose
        workers then do the work block by block.
    progress, cancel
        Told about every batch of windows and every step down; looked at before every batch.

    Returns
    -------
    Prediction
        In the geometry of the image.

    Raises
    ------
    BadImage
        If the image does not fit the model, or the region does not lie in the image.
    BadModel
        If uncertainty by dropout is asked of a network without it.
    Cancelled
        If `cancel` was set.
    OutOfMemory
        If not even the smallest effort had enough memory, or the results would not fit into it.
    ValueError
        If an option is impossible.
    """
    try:
        task = set_up(
            model,
            image,
            uncertainty=uncertainty,
            probabilities=probabilities,
            batch=batch,
            overlap=overlap,
            roi=roi,
            plane=plane,
            flips=flips,
            blending=blending,
        )
        check_room(math.prod(task.volume.spatial_shape), model.card, task.settings.wanted, labels=into is None)
        if compute == "local":

            def attempt(effort: Effort, report: Progress) -> Results:
                return _attempt(task, effort, into, report, cancel)

            results, notes = by_the_ladder(model, task.effort, attempt, progress or silent)
        else:
            from napari_medt.engine.cluster import segment_on_cluster

            results, notes = segment_on_cluster(task, compute, into, progress or silent, cancel)
    except BaseException:
        if into is not None and hasattr(into, "discard"):
            into.discard()
        raise
    if model.card.one_piece and into is None and roi is None:
        notes = (*notes, *_left_out(results.labels, model.card))
    elif model.card.one_piece:
        notes = (*notes, f"Parts that lie apart were not left out of: {', '.join(model.card.one_piece)}.")
    return Prediction(
        labels=results.labels,
        geometry=task.volume.geometry,
        classes=model.card.classes,
        probabilities=results.probabilities,
        uncertainty=results.uncertainty,
        structures=results.structures,
        notes=(*task.notes, *notes),
        model=model.card.key,
    )


def _left_out(labels: npt.NDArray[Any], card: ModelCard) -> tuple[str, ...]:
    """Leave out what lies apart from structures that come in one piece, and say so."""
    strays = leave_out_strays(labels, [card.classes.index(name) for name in card.one_piece])
    names = ", ".join(card.classes[value] for value in strays)
    return (f"Only the largest part is shown of: {names}.",) if strays else ()


@dataclass(frozen=True, eq=False)
class Task:
    """All that is known before a prediction starts.

    Attributes
    ----------
    volume
        As it was given.
    box
        What is to be segmented, in the axes of the volume rearranged by `prepared.grid.axes`; possibly empty.
    effort
        To begin with.
    """

    model: Model
    volume: Volume
    prepared: Prepared
    box: Box
    settings: Settings
    effort: Effort
    notes: tuple[str, ...]


class Options(TypedDict, total=False):
    """What can be asked of a prediction; see `predict`."""

    uncertainty: bool | Uncertainty
    probabilities: bool
    batch: int | None
    overlap: float | None
    roi: Roi | None
    plane: Plane | None
    flips: bool
    blending: Blending


def set_up(model: Model, image: Volume | npt.ArrayLike, **options: Unpack[Options]) -> Task:
    """Check what is asked for and fit the image to the model; parameters and errors as of `predict`."""
    uncertainty, batch, roi = options.get("uncertainty", False), options.get("batch"), options.get("roi")
    plane, blending = options.get("plane"), options.get("blending", "smooth")
    card = model.card
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    kind: Uncertainty | None = "entropy" if uncertainty is True else uncertainty or None
    for name, value, known in (("uncertainty", kind, Uncertainty), ("blending", blending, Blending)):
        if value is not None and value not in get_args(known):
            raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, not {value!r}")
    if kind == "dropout":
        check_dropout(model)
    volume = image if isinstance(image, Volume) else Volume.from_array(image)
    ndim = volume.geometry.ndim
    if card.spatial_dims > ndim:
        raise BadImage(f"{card.title} segments 3D scans, but this is a 2D image", remedy="open the whole scan")
    if plane is not None and card.spatial_dims == 3:
        raise BadImage(f"{card.title} segments whole scans, not their slices", remedy="choose no plane")
    chosen = region(roi, volume.spatial_shape)
    prepared = fit(volume, card, axes=None if plane is None else plane_axes(volume.geometry, plane))
    box = prepared.grid.turned(chosen)
    if prepared.crop is not None:
        box = common_box(box, prepared.crop)
    wanted = Wanted(options.get("probabilities", False), kind)
    settings = Settings(options.get("overlap"), options.get("flips", False), blending, wanted)
    effort = effort_for(model, batch)
    notes = prepared.notes
    if roi is not None:
        notes = (*notes, "Only the chosen region was segmented; the mask is empty elsewhere.")
    if kind in ("flips", "dropout"):
        count = settings.passes(model, model.device).count
        how = "mirrored in every way" if kind == "flips" else "with dropout"
        notes = (*notes, f"The mask is the mean of {count} passes {how}.")
    prepared = replace(prepared, array=in_rows(prepared.array))
    return Task(model, volume, prepared, box, settings, effort, notes)


def effort_for(model: Model, batch: int | None = None) -> Effort:
    """What a model is run with to begin with; `batch` as of `predict`."""
    device, window = model.device, model.card.window
    return Effort(device, batch or default_batch(device, window), window, stitch_there=device.type in ("cuda", "mps"))


def default_batch(device: torch.device, window: tuple[int, ...]) -> int:
    """Windows in one pass, so that they hold no more samples than `BATCH` windows of 128 x 128 together."""
    most = BATCH.get(device.type, BATCH["cpu"])
    return max(1, min(most, most * 128**2 // math.prod(window)))


def by_the_ladder(
    model: Model,
    effort: Effort,
    attempt: Callable[[Effort, Progress], Made],
    report: Progress,
    *,
    smallest_window: int = SMALLEST_WINDOW,
) -> tuple[Made, tuple[str, ...]]:
    """Try with ever less memory; what the attempt that went well made, and what was done about missing memory."""
    ladder = steps_down(effort, smallest_window=smallest_window)
    notes: list[str] = []
    try:
        while True:
            try:
                return attempt(effort, _saying(report, notes)), tuple(notes)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                step = next(ladder, None)
                if step is None:
                    raise OutOfMemory(
                        "There was not enough memory, even for one small window at a time",
                        remedy="close other programs, or segment a part of the image",
                    ) from error
            # Only here has the failed attempt let go of its arrays.
            effort, sentence = step
            notes.append(sentence)
            report(0, 1, sentence)
            free_cached(model.device)
    finally:
        if effort.device != model.device:
            _bring_back(model)


def _attempt(task: Task, effort: Effort, into: Store | None, report: Progress, cancel: Cancel | None) -> Results:
    """One attempt at all that is to be segmented with one effort."""
    model, wanted = task.model, task.settings.wanted
    results = Results(task.volume.spatial_shape, model.card, wanted, axes=task.prepared.grid.axes, into=into)
    model.net.to(effort.device).eval()
    parts = segment_block(
        model, task.prepared, task.box, effort=effort, settings=task.settings, progress=report, cancel=cancel
    )
    for where, values in parts:
        results.keep(where, values)
    results.finish()
    return results


def _saying(report: Progress, notes: list[str]) -> Progress:
    """Progress that goes on saying what was last done about missing memory."""

    def say(done: int, total: int, message: str = "", /) -> None:
        report(done, total, f"{message}. {notes[-1]}" if notes else message)

    return say


def _bring_back(model: Model) -> None:
    """Put the network where its model says it is; where memory is still short, the next prediction tries again."""
    try:
        model.net.to(model.device)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
