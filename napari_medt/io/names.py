"""Names of cases that every file system takes, each only once."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from napari_medt.io.kinds import FORMATS

LONGEST = 80  # letters, so that endings and a folder's own path have room
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # on Windows
_ENDINGS = sorted({ending for endings in FORMATS.values() for ending in endings} | {".ome.tif", ".ome.tiff"})


def safe_name(text: str) -> str:
    """Name a case: letters, digits, dots, dashes and underscores of `text`, everything else a dash.

    Examples
    --------
    >>> safe_name("../Müller, A/ct 1")
    'Müller-A-ct-1'
    """
    name = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", text)).strip("-. ")[:LONGEST].rstrip("-. ")
    return f"_{name}" if _RESERVED.fullmatch(name) else name


def names_from_paths(paths: Sequence[Path], *, extra: Sequence[str] = (), home: Path | None = None) -> list[str]:
    """Name cases by where their images lie, below a folder.

    Parameters
    ----------
    paths
        Of the images, absolute.
    extra
        For each, what tells it from others at the same path.
    home
        The folder; by default the deepest that all have in common.

    Returns
    -------
    list of str
        None twice, also where small and capital letters are the same. Where two would be alike, both end in a digest.
    """
    home = home or common_folder(paths)
    places = [os.path.relpath(path, home) for path in paths]
    whole = [f"{place}|{part}" for place, part in zip(places, extra or [""] * len(places), strict=True)]
    names = [safe_name("_".join(PurePath(without_ending(place)).parts)) or "case" for place in places]
    counts = Counter(name.casefold() for name in names)
    return [
        f"{name}-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
        if counts[name.casefold()] > 1
        else name
        for name, text in zip(names, whole, strict=True)
    ]


def common_folder(paths: Sequence[Path]) -> Path:
    """The deepest folder in which all of `paths` lie; the top of the disk where they lie on several."""
    try:
        return Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError:
        return Path(paths[0].anchor)


def without_ending(name: str) -> str:
    """A file's name without the ending of its format: `.nii.gz`, `.ome.tif` and `.seg.nrrd` as a whole.

    Examples
    --------
    >>> without_ending("a.b.nii.gz"), without_ending("a.ome.tif")
    ('a.b', 'a')
    """
    ending = max((ending for ending in _ENDINGS if name.lower().endswith(ending)), key=len, default="")
    stem = name[: len(name) - len(ending)] if ending else name
    return stem.removesuffix(".ome").removesuffix(".seg") or name
