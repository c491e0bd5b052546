"""Which images a worklist is of, and which of them were there before under another name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from napari_medt.cases.worklist_file import NAME, WORK, Known
from napari_medt.core import BadImage, Cancel, Progress
from napari_medt.io.folders import FoundImage, files_at, images_in


def listed(folder: Path, *, leave_out: Path, progress: Progress, cancel: Cancel | None) -> tuple[FoundImage, ...]:
    """List the images of a folder, at least one; not the masks that are kept where folders in it were opened on their own.

    Raises
    ------
    BadImage
        If there is none.
    """
    found = images_in(folder, leave_out=leave_out, progress=progress, cancel=cancel)
    found = tuple(image for image in found if not _is_work(image.path))
    if not found:
        raise BadImage(f"There is no image in {folder}", remedy="choose a folder with images")
    return found


def _is_work(path: Path) -> bool:
    return any(place.name == WORK and (place / NAME).is_file() for place in path.parents)


def matched(
    folder: Path, images: Sequence[FoundImage], known: Sequence[Known]
) -> tuple[list[Known], tuple[Known, ...]]:
    """What is known of each image, and what is known of images that are gone though they were worked on.

    Files are only read where a place is new or changed, and something of that size was worked on and is missed.
    """
    fresh = [_fresh(folder, image) for image in images]
    by_key = {each.key: each for each in known}
    result: list[Known | None] = []
    for each in fresh:
        old = by_key.get(each.key)
        same = old is not None and (old.size, old.changed) == (each.size, each.changed)
        result.append(by_key.pop(each.key) if same else None)
    missed = [each for each in by_key.values() if each.content]
    for index, (each, image) in enumerate(zip(fresh, images, strict=True)):
        if result[index] is not None:
            continue
        result[index] = each
        if any(old.size == each.size for old in missed):
            try:
                content = content_of(image)
            except OSError:
                continue
            # Where copies were worked on, the one at this place comes first.
            alike = sorted((old for old in missed if old.content == content), key=lambda old: old.key != each.key)
            if alike:
                missed.remove(alike[0])
                moved = {"place": each.place, "choose": each.choose, "size": each.size, "changed": each.changed}
                result[index] = alike[0].model_copy(update=moved)
    return [each for each in result if each is not None], tuple(missed)


def is_as_known(folder: Path, image: FoundImage, known: Known) -> bool:
    """Whether the files of an image are still of the size, and from the time, that is known of them."""
    now = _fresh(folder, image)
    return (now.size, now.changed) == (known.size, known.changed)


def _files(image: FoundImage) -> list[Path]:
    return [Path(file) for file in image.files] or list(files_at(image.path))


def _fresh(folder: Path, image: FoundImage) -> Known:
    """What is known of an image that was never worked on."""
    try:
        stats = [file.stat() for file in _files(image)]
    except OSError:  # reading it tells
        stats = []
    return Known(
        place=storable(image.path.relative_to(folder).as_posix()),
        choose=image.choose,
        size=sum(stat.st_size for stat in stats),
        changed=max((stat.st_mtime_ns for stat in stats), default=0),
    )


def content_of(image: FoundImage) -> str:
    """A digest of what is in the files, whatever they are called."""
    digests = []
    for path in _files(image):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def storable(text: str) -> str:
    """A name as it can be written, also where the disk has bytes in it that are no letters."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
