"""The layouts of data sets that are understood, each a function from a folder to a `DataSet`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_medt.core import BadTrainingData
from napari_medt.io.names import without_ending
from napari_medt.training.brats import from_patients, has_patients
from napari_medt.training.case_table import annotated, read_table, side_of
from napari_medt.training.dataset_json import DESCRIPTION, from_description, from_training_folders
from napari_medt.training.datasets import Case, DataSet, Layout, MaskRule, Side
from napari_medt.training.files import files_in
from napari_medt.training.problems import Problem

IMAGES = ("images", "image", "imgs")
LABELS = ("labels", "label", "masks", "mask", "annotations")
INDEX = "index.csv"
CASE_CARD, CASE_MASK = "case.json", "mask.tif"  # of a folder of `napari_medt.cases`
WORKLIST = "worklist.json"  # beside the folders of cases
REVIEW = Path("napari-medt", "cases")  # beside the images of a folder that was opened for review
_UNDERSTOOD = (
    "give a folder with images/ and labels/, img/ and labelcol/, imagesTr/ and labelsTr/, a dataset.json, "
    "or name the two folders"
)


def listed(folder: Path, layout: Layout, *, images: Path | None, labels: Path | None, rule: MaskRule | None) -> DataSet:
    """As `find_cases`; `images` and `labels` are whole paths."""
    if layout == "cases" or (layout == "auto" and _card_files(folder) and labels is None):
        found = _from_cases(folder, images)
    elif layout == "brats":
        found = from_patients(folder)
    elif layout in ("decathlon", "nnunet") or (layout == "auto" and images is labels is None):
        found = _recognised(folder, layout)
    else:
        found = _from_folders(folder, layout, images, labels)
    found = replace(found, rule=rule or found.rule, cases=tuple(sorted(found.cases, key=lambda case: case.name)))
    return _with_index(found)


def _recognised(folder: Path, layout: Layout) -> DataSet:
    if layout != "auto" or (folder / DESCRIPTION).is_file():
        description = _description(folder, needed=layout == "decathlon")
        if layout != "auto" or {"training", "labels", "channel_names"} & set(description):
            return from_description(folder, description, layout)
    names = {path.name for path in _folders(folder)}
    if {"imagesTr", "labelsTr"} <= names:
        return from_training_folders(folder, {})
    sides = {path: side for path in _folders(folder) if (side := side_of(path.name))}
    if sides and not _pair(folder, "auto", None, None):
        return _from_sides(folder, sides)
    if has_patients(folder):
        return from_patients(folder)
    if (folder / REVIEW).is_dir() and not _pair(folder, "auto", None, None):
        return _from_cases(folder, None)
    return _from_folders(folder, "auto", None, None)


def _description(folder: Path, *, needed: bool) -> Mapping[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file() and not needed:
        return {}
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise BadTrainingData(f"{path} cannot be read: {error.strerror}", remedy="check the file") from error
    except ValueError as error:
        raise BadTrainingData(f"{path} is not valid JSON: {error}", remedy="get the data set again") from error
    if not isinstance(content, dict):
        raise BadTrainingData(f"{path} does not describe a data set", remedy="get the data set again")
    return content


# -------------------------------------------------------------------------------------------------------- two folders


def _from_folders(folder: Path, layout: Layout, images: Path | None, labels: Path | None) -> DataSet:
    pair = _pair(folder, layout, images, labels)
    if pair is None:
        candidates = sorted(path.name for path in _folders(folder) if path.name.casefold().startswith("label"))
        if len(candidates) > 1 and labels is None:
            raise BadTrainingData(
                f"{folder} holds several folders of masks: {', '.join(candidates)}", remedy="say which as labels"
            )
        raise BadTrainingData(f"{folder} is of no layout that is understood", remedy=_UNDERSTOOD)
    for part in pair:
        if not part.is_dir():
            raise BadTrainingData(f"There is no folder {part}", remedy="check its name")
    seen, masks = files_in(pair[0]), files_in(pair[1])
    problems = [*seen.problems, *masks.problems]
    alone = set(masks.files) - set(seen.files)
    alike = {name.casefold(): name for name in sorted(alone)}
    for name in sorted(set(seen.files) - set(masks.files)):
        what = f"{seen.files[name].name} has no mask of the same name in {pair[1].name}"
        remedy = "add the mask, or take the image out"
        if other := alike.get(name.casefold()):
            remedy = f"rename {masks.files[other].name}, as capital and small letters count"
            alone.discard(other)
        problems.append(Problem("error", "no mask", what, remedy, name))
    for name in sorted(alone):
        what = f"The mask {masks.files[name].name} has no image of the same name in {pair[0].name}"
        problems.append(Problem("error", "no image", what, "add the image, or take the mask out", name))
    cases = [Case(name, (path,), masks.files[name]) for name, path in seen.files.items() if name in masks.files]
    if not cases:
        raise BadTrainingData(
            f"No image in {pair[0]} has a mask of the same name in {pair[1]}",
            remedy="give each mask the name of its image",
        )
    original = layout == "original" or pair[1].name == "labelcol"
    return DataSet(
        folder,
        "original" if original else "folders",
        tuple(cases),
        rule="white" if original else "classes",
        ignored=seen.ignored + masks.ignored,
        problems=tuple(problems),
    )


def _pair(folder: Path, layout: Layout, images: Path | None, labels: Path | None) -> tuple[Path, Path] | None:
    """The folders of images and of masks, by the names given or the usual ones."""
    names = {path.name.casefold(): path for path in _folders(folder)}
    if layout == "original" or (layout == "auto" and images is labels is None and {"img", "labelcol"} <= set(names)):
        return images or folder / "img", labels or folder / "labelcol"
    seen = images or next((names[name] for name in IMAGES if name in names), None)
    masks = labels or next((names[name] for name in LABELS if name in names), None)
    return (seen, masks) if seen and masks else None


def _from_sides(folder: Path, sides: Mapping[Path, Side]) -> DataSet:
    """Folders for training, validation and test, each with a pair of folders in it."""
    parts = [(side, _from_folders(part, "auto", None, None)) for part, side in sides.items()]
    names = [case.name for _, part in parts for case in part.cases]
    cases = [
        replace(case, split=side, name=f"{side}-{case.name}" if names.count(case.name) > 1 else case.name)
        for side, part in parts
        for case in part.cases
    ]
    first = parts[0][1]
    return replace(
        first,
        folder=folder,
        cases=tuple(cases),
        ignored=sum(part.ignored for _, part in parts),
        problems=tuple(problem for _, part in parts for problem in part.problems),
    )


# ----------------------------------------------------------------------------------------------------- reviewed cases


def _from_cases(folder: Path, images: Path | None) -> DataSet:
    """Masks of accepted reviews; the folders of cases hold no image: the worklist knows where it lies, else its name tells."""
    cards = folder / REVIEW if (folder / REVIEW).is_dir() else folder
    if images is None and cards.absolute().parts[-2:] == REVIEW.parts:
        images = cards.absolute().parents[1]
    if images is None:
        raise BadTrainingData(
            f"{folder} holds reviewed masks, but not their images",
            remedy="give the folder that was opened for review, or say as images where they are",
        )
    places: dict[str, list[Path]] = {}
    for path in sorted(images.rglob("*")):
        places.setdefault(path.name, []).append(path)
    listed = _listed(cards.absolute().with_name(WORKLIST))
    cases, problems = [], []
    for card in _card_files(cards):
        mask = card.with_name(CASE_MASK)
        name, status = _said_by(card)
        short = card.parent.name[:8]
        there, known = places.get(name, []), images / listed.get(card.parent.name, "")
        there = [known] if known in there else there
        if status != "accepted" or not mask.is_file():
            what = f"The review of {name} has the status {status!r}" if mask.is_file() else f"{name} has no mask yet"
            problems.append(Problem("warning", "not accepted", what, "accept it in the review to learn from it", short))
        elif len(there) != 1:
            what = f"There are {len(there)} images called {name} in {images}"
            problems.append(Problem("error", "no image", what, "put just the reviewed image there", short))
        else:
            cases.append(Case(f"{without_ending(Path(name).name)}-{short}", (there[0],), mask))
    if not cases:
        raise BadTrainingData(
            f"None of the reviews in {folder} is accepted and has its image in {images}",
            remedy="accept masks in the review first, or name the folder of their images",
        )
    return DataSet(folder, "cases", tuple(cases), problems=tuple(problems))


def _listed(worklist: Path) -> dict[str, str]:
    """Where each image lies below the folder that was opened for review, by the name of its case; empty without a worklist."""
    try:
        known = json.loads(worklist.read_bytes())["known"]
        return {
            str(case): str(item["place"])
            for item in known
            for case in (item["digest"], *item.get("channels", ()))
            if case
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _card_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob(CASE_CARD), *folder.glob(f"*/{CASE_CARD}")])


def _said_by(card: Path) -> tuple[str, str]:
    """Name of the image and status of the review."""
    try:
        content = json.loads(card.read_bytes())
        return str(content["image"]), str(content["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return card.parent.name, "damaged"


# -------------------------------------------------------------------------------------------------------------- index


def _with_index(found: DataSet) -> DataSet:
    tables = [found.folder / INDEX]
    if not tables[0].is_file():
        tables = sorted(path for path in found.folder.glob("*.csv") if not path.name.startswith("."))
    table = read_table(tables[0]) if len(tables) == 1 else None
    if table is None:
        return found
    cases, problems = annotated(found.cases, table)
    return replace(found, cases=cases, problems=(*found.problems, *problems))


def _folders(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
