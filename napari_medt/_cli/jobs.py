"""Images in, masks out: a few that were named one by one, or a cohort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from napari_medt.core import AmbiguousImage, BadImage, Cancel, Cancelled, MedtError, Progress

if TYPE_CHECKING:
    from napari_medt.cohort import Outcome
    from napari_medt.zoo import Model


NO_MAPS = (".png", ".seg.nrrd", ".dcm", ".zarr")  # formats that hold whole numbers only


@dataclass(frozen=True)
class Job:
    """One image and where its results go."""

    image: Path
    mask: Path
    uncertainty: Path | None = None


def is_cohort(images: Sequence[Path], output: Path) -> bool:
    """Whether what was given is a table, or a folder whose images are cases, not the slices of one."""
    from napari_medt.io.kinds import kind_of
    from napari_medt.io.writing import ENDINGS

    if len(images) != 1:
        return False
    if images[0].suffix.lower() in (".csv", ".tsv"):
        return True
    one = output.name.lower().endswith(ENDINGS) and not output.is_dir()
    return images[0].is_dir() and kind_of(images[0]) == "DICOM" and not one


def predict_cohort(
    source: Path,
    output: Path,
    model_name: str,
    *,
    device: str,
    compute: str,
    options: Mapping[str, Any],
    progress: Progress,
    cancel: Cancel,
) -> tuple[Outcome, ...]:
    """Segment the cases of a table or a folder and say what became of them; parameters and errors as of `run_cohort`."""
    from napari_medt._cli.console import out
    from napari_medt.cohort import list_cases, run_cohort

    cases = list_cases(source, leave_out=output, progress=progress, cancel=cancel)
    outcomes = run_cohort(
        cases,
        output,
        model=model_name,
        device=device,
        compute=compute,
        options=options,
        progress=progress,
        cancel=cancel,
    )
    table = Table("Case", "Result", "", box=None, pad_edge=False, header_style="bold")
    marks = {"done": "[green]segmented[/]", "unchanged": "as it was", "failed": "[bold red]failed[/]"}
    for outcome in outcomes:
        where = str(outcome.mask.relative_to(output.absolute())) if outcome.mask else outcome.reason
        table.add_row(escape(outcome.case), marks[outcome.state], escape(where))
    out.print(table)
    counts = Counter(outcome.state for outcome in outcomes)
    out.print(
        f"{counts['done']} segmented, {counts['unchanged']} as they were, {counts['failed']} failed; masks and record lie in "
        f"{output}",
        highlight=False,
        markup=False,
    )
    return outcomes


def plan_outputs(
    images: Sequence[Path], *, output: Path, uncertainty: Path | None = None, beside: bool = False
) -> list[Job]:
    """Decide where each result goes, before anything is computed.

    Parameters
    ----------
    images
        Paths as the user gave them.
    output, uncertainty
        A file for one image; a folder, which need not exist yet, for several. A name without an ending is a folder.
    beside
        Whether the uncertainty goes beside the mask.

    Returns
    -------
    list of Job
        In the order of `images`; no two results share a path.

    Raises
    ------
    BadImage
        If several images would go into one file, or a result would overwrite an image.
    """
    from napari_medt.cohort.work import map_place, mask_ending
    from napari_medt.io.writing import ENDINGS

    paths = list(dict.fromkeys(images))
    names = _distinct_names(paths)
    masks = _targets(
        paths, output, [f"{name}_mask{mask_ending(path)}" for name, path in zip(names, paths, strict=True)]
    )
    maps: list[Path | None] = [map_place(mask) if beside else None for mask in masks]
    if uncertainty:
        maps[:] = _targets(paths, uncertainty, [f"{name}_uncertainty.tif" for name in names])
    jobs = [Job(image, mask, extra) for image, mask, extra in zip(paths, masks, maps, strict=True)]
    inputs = {path.resolve() for path in paths}
    results = [path for job in jobs for path in (job.mask, job.uncertainty) if path is not None]
    for path in results:
        name = path.name.lower()
        if not name.endswith(ENDINGS) or (path not in masks and name.endswith(NO_MAPS)):
            raise BadImage(
                f"{path} has an ending that results cannot be written with",
                remedy="use .nii.gz, .nrrd, .mha or .tif; masks also go into .seg.nrrd, .dcm, .ome.zarr and, in 2D, .png",
            )
        if path.resolve() in inputs:
            raise BadImage(f"The result {path} would overwrite an image", remedy="choose another output")
    if len({path.resolve() for path in results}) < len(results):
        raise BadImage("Two results would go into the same file", remedy="give different outputs")
    return jobs


def _targets(images: Sequence[Path], wanted: Path, names: Sequence[str]) -> list[Path]:
    is_folder = wanted.is_dir() or not wanted.suffix
    if is_folder:
        return [wanted / name for name in names]
    if len(images) > 1:
        raise BadImage(
            f"{len(images)} images cannot all go into the one file {wanted}", remedy="give a folder as the output"
        )
    return [wanted]


def _distinct_names(images: Sequence[Path]) -> list[str]:
    """Names for the results: that of the image, led by its folder or a number where two are alike."""
    from napari_medt.io.names import without_ending

    names = [without_ending(image.name) for image in images]
    names = _lengthen_where_alike(
        names, [f"{image.resolve().parent.name}_{without_ending(image.name)}" for image in images]
    )
    names = _lengthen_where_alike(
        names, [f"{name}_{image.suffix[1:]}" for name, image in zip(names, images, strict=True)]
    )
    return _lengthen_where_alike(names, [f"{number}_{name}" for number, name in enumerate(names, start=1)])


def _lengthen_where_alike(names: Sequence[str], longer: Sequence[str]) -> list[str]:
    counts = Counter(names)
    return [long if counts[name] > 1 else name for name, long in zip(names, longer, strict=True)]


def predict_files(
    jobs: Sequence[Job],
    model_name: str,
    *,
    device: str = "auto",
    compute: str = "local",
    choose: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    progress: Progress,
    cancel: Cancel,
) -> list[str]:
    """Segment the images one by one; an image that fails does not stop the others.

    Parameters
    ----------
    jobs
        What goes where.
    model_name, device
        As `load_model` takes them.
    compute, options
        As `predict` takes them.
    choose
        As `read` takes it.
    progress
        Told the windows of the image at work.
    cancel
        Looked at between windows and images.

    Returns
    -------
    list of str
        One sentence for each image that failed.

    Raises
    ------
    AmbiguousImage
        If there is one image, and only the user can say how it is to be read.
    BadModel
        If the model cannot be loaded.
    DeviceError
        If the device is missing.
    Cancelled
        If the user cancelled; results already written stay.
    """
    from napari_medt._cli.console import out
    from napari_medt.zoo import load_model

    for job in jobs:
        for path in (job.mask, job.uncertainty):
            if path is not None:
                _make_folder(path.parent)
    progress(0, 1, f"Loading {model_name}")
    model = load_model(model_name, device=device)
    wishes = dict(options or {}) | {"compute": compute}
    failures = []
    for number, job in enumerate(jobs, start=1):
        cancel.check()
        prefix = f"{number}/{len(jobs)} {job.image.name}" if len(jobs) > 1 else job.image.name

        def report(done: int, total: int, message: str = "", /, *, prefix: str = prefix) -> None:
            progress(done, total, f"{prefix} {message}".rstrip())

        try:
            sentences = _predict_one(job, model, choose, wishes, report, cancel)
        except Cancelled:
            raise
        except MedtError as error:
            if isinstance(error, AmbiguousImage) and len(jobs) == 1:
                raise
            failures.append(str(error))
            continue
        for sentence in sentences:
            out.print(sentence, highlight=False, markup=False)
    return failures


def _make_folder(folder: Path) -> None:
    from napari_medt.io.atomic import storage_error

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder, doing="made") from error


def _predict_one(
    job: Job, model: Model, choose: Sequence[str], wishes: dict[str, Any], report: Progress, cancel: Cancel
) -> list[str]:
    from napari_medt.cohort.work import segment_to
    from napari_medt.io import read

    volume = read(job.image, choose=choose, progress=report, cancel=cancel)
    done = segment_to(
        model, volume, job.mask, options=wishes, uncertainty=job.uncertainty, progress=report, cancel=cancel
    )
    share = "segmented" if done.marked is None else f"{done.marked:.1%} of the image marked"
    sentences = [f"{job.image} -> {done.files[0]}: {share} by {model.card.key}"]
    sentences += [f"{job.image} -> {place}: uncertainty" for place in done.files[1:]]
    return sentences + [f"Note: {note}" for note in done.notes]
