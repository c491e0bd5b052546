"""The image files of a folder by their names, without what does not belong there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from napari_medt.io.kinds import FORMATS, ending_of
from napari_medt.io.names import without_ending
from napari_medt.training.problems import Problem

_OF_THE_SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db"}
_ENDINGS = {ending for endings in FORMATS.values() for ending in endings}
_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass
class Found:
    """What lies in a folder: files by name without ending; how many were passed over; what is there twice."""

    files: dict[str, Path] = field(default_factory=dict)
    ignored: int = 0
    problems: list[Problem] = field(default_factory=list)


def files_in(folder: Path) -> Found:
    """List the image files of a folder, in the order of their names; a folder in it is one DICOM or OME-Zarr image."""
    found = Found()
    for path in sorted(folder.iterdir()):
        if not _is_image(path):
            found.ignored += 1
            continue
        if path.suffix.lower() == ".img" and path.with_suffix(".hdr").is_file():
            continue  # its header stands for both
        first = found.files.setdefault(without_ending(path.name), path)
        if first is not path:
            what = f"There are two files of this name in {folder.name}, {first.name} and {path.name}"
            found.problems.append(Problem("error", "two files", what, "remove one of them", without_ending(path.name)))
    return found


def by_channels(files: dict[str, Path]) -> dict[str, dict[int, Path]]:
    """Files of one case together, by the number of the channel at the end of their names, `_0000` and on."""
    cases: dict[str, dict[int, Path]] = {}
    for stem, path in files.items():
        match = _CHANNEL.fullmatch(stem)
        name, number = (match[1], int(match[2])) if match else (stem, 0)
        cases.setdefault(name, {})[number] = path
    return cases


def _is_image(path: Path) -> bool:
    if path.name.startswith(".") or path.name.casefold() in _OF_THE_SYSTEM:
        return False
    return path.is_dir() or ending_of(path) in _ENDINGS
