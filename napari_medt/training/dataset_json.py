"""The `dataset.json` of the Medical Segmentation Decathlon and of nnU-Net (versions 1 and 2), and its folders.

Decathlon: `modality` {"0": "MRI"}, `labels` {"0": "background"}, `training` [{"image": ..., "label": ...}]; several modalities
are the fourth axis of one file. nnU-Net 1 writes the same, but each modality in a file of its own, `NAME_0000.nii.gz`, and its
list leaves these four digits out. nnU-Net 2: `channel_names` instead of `modality`, `labels` {"background": 0}, no list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_medt.core import BadTrainingData
from napari_medt.io.names import without_ending
from napari_medt.training.datasets import Case, DataSet, Layout, Side
from napari_medt.training.files import Found, by_channels, files_in
from napari_medt.training.problems import Problem

DESCRIPTION = "dataset.json"
_FOLDERS: dict[Side, tuple[str, str]] = {"": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}
_NO_MODALITY = {"nonorm", "rescale_to_0_1", "zscore", "rescale_0_1", "rgb_to_0_1"}  # schemes of nnU-Net, not modalities


def from_description(folder: Path, description: Mapping[str, Any], layout: Layout) -> DataSet:
    """Read a data set by what its `dataset.json` says.

    Raises
    ------
    BadTrainingData
        If there is no case.
    """
    training = description.get("training")
    if isinstance(training, list) and training and layout != "nnunet":
        pairs = [_entry(folder, entry) for entry in training]
        if layout == "decathlon" or any(image.exists() for image, _ in pairs):
            return _from_list(folder, description, pairs)
    return from_training_folders(folder, description)


def _entry(folder: Path, entry: Any) -> tuple[Path, Path]:
    if not isinstance(entry, dict) or not {"image", "label"} <= set(entry):
        raise BadTrainingData(
            f"The list 'training' of {folder / DESCRIPTION} holds {entry!r}, which names no image and label",
            remedy="correct the list",
        )
    return folder / str(entry["image"]), folder / str(entry["label"])


def _from_list(folder: Path, description: Mapping[str, Any], pairs: Sequence[tuple[Path, Path]]) -> DataSet:
    """The Decathlon's: the files that the list names."""
    channels = _channels(description)
    choose = ("channels",) if len(channels) > 1 else ()
    cases, problems = [], []
    for image, label in pairs:
        missing = [path for path in (image, label) if not path.exists()]
        if missing:
            what = f"{DESCRIPTION} names {missing[0].relative_to(folder)}, but there is no such file"
            kind = "no image" if image in missing else "no mask"
            problems.append(Problem("error", kind, what, "get the data set again", without_ending(image.name)))
        else:
            cases.append(Case(without_ending(image.name), (image,), label, choose=choose))
    return _data_set(folder, "decathlon", cases, description, problems, _passed_over(folder))


def from_training_folders(folder: Path, description: Mapping[str, Any]) -> DataSet:
    """nnU-Net's: `imagesTr/` and `labelsTr/`, and `imagesTs/` with `labelsTs/` as the test side.

    Raises
    ------
    BadTrainingData
        If a folder is missing or there is no case.
    """
    cases: list[Case] = []
    problems: list[Problem] = []
    ignored = 0
    for side, (images, labels) in _FOLDERS.items():
        if not ((folder / images).is_dir() and (folder / labels).is_dir()):
            if not side:
                raise BadTrainingData(
                    f"{folder} does not hold both {images}/ and {labels}/", remedy="give the folder of the data set"
                )
            continue
        seen, masks = files_in(folder / images), files_in(folder / labels)
        cases += _joined(seen, masks, images, labels, side, problems)
        ignored += seen.ignored + masks.ignored
    return _data_set(folder, "nnunet", cases, description, problems, ignored)


def _joined(seen: Found, masks: Found, images: str, labels: str, side: Side, problems: list[Problem]) -> list[Case]:
    """Cases from all files of their channels; adds to `problems`."""
    problems += [*seen.problems, *masks.problems]
    groups = by_channels(seen.files)
    numbers = sorted({number for group in groups.values() for number in group})
    cases = []
    for name in sorted(set(groups) | set(masks.files)):
        group = groups.get(name, {})
        absent = [number for number in numbers if number not in group]
        if not group:
            what = f"The mask {masks.files[name].name} has no image in {images}"
            problems.append(Problem("error", "no image", what, "add the image, or take the mask out", name))
        elif name not in masks.files:
            what = f"It has no mask in {labels}"
            problems.append(Problem("error", "no mask", what, "add the mask, or take the image out", name))
        elif absent:
            what = f"Its channel {', '.join(f'{number:04}' for number in absent)} is missing in {images}"
            problems.append(Problem("error", "no image", what, "add the file, or take the case out", name))
        else:
            cases.append(Case(name, tuple(group[number] for number in numbers), masks.files[name], split=side))
    return cases


def _data_set(
    folder: Path,
    layout: Layout,
    cases: Sequence[Case],
    description: Mapping[str, Any],
    problems: list[Problem],
    ignored: int,
) -> DataSet:
    if not cases:
        raise BadTrainingData(f"No image in {folder} has a mask", remedy="get the data set again, or check the names")
    labels = description.get("labels")
    classes, regions = _classes(labels if isinstance(labels, dict) else {})
    if "ignore" in classes.values():
        what = f"{DESCRIPTION} has a label to ignore, which would be learnt as a class"
        problems.append(Problem("warning", "ignore", what, "take it out of the classes"))
    channels = _channels(description)
    modality = next((name for name in channels if name.casefold() not in _NO_MODALITY), "")
    return DataSet(
        folder,
        layout,
        tuple(cases),
        classes=classes,
        regions=regions,
        channels=channels,
        modality=modality,
        ignored=ignored,
        problems=tuple(problems),
    )


def _channels(description: Mapping[str, Any]) -> tuple[str, ...]:
    named = description.get("channel_names", description.get("modality"))
    if not isinstance(named, dict):
        return ()
    return tuple(str(named[key]) for key in sorted(named, key=lambda key: int(key) if str(key).isdigit() else 0))


def _classes(labels: Mapping[str, Any]) -> tuple[dict[int, str], dict[str, tuple[int, ...]]]:
    """Names by label value, from either way of writing them, and values by the name of the region they make up."""
    classes: dict[int, str] = {}
    regions: dict[str, tuple[int, ...]] = {}
    for key, value in labels.items():
        if isinstance(value, str) and str(key).isdigit():
            classes[int(key)] = value
        elif isinstance(value, int):
            classes[value] = str(key)
            regions[str(key)] = (value,)
        elif isinstance(value, list):
            regions[str(key)] = tuple(map(int, value))
    for value in sorted({value for values in regions.values() for value in values}):
        classes.setdefault(value, f"label {value}")
    several = any(len(values) > 1 for values in regions.values())
    overlapping = {name: values for name, values in regions.items() if 0 not in values} if several else {}
    return dict(sorted(classes.items())), overlapping


def _passed_over(folder: Path) -> int:
    return sum(files_in(folder / name).ignored for name in _FOLDERS[""] if (folder / name).is_dir())
