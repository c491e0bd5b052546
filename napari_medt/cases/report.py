"""Hand over an accepted mask: the file, and beside it a record of facts on how it came about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_medt.cases.folder import CaseFolder
from napari_medt.cases.identity import mask_digest
from napari_medt.cases.log import Line
from napari_medt.core import BadCase, LabelMap, Volume
from napari_medt.core.volume import Array
from napari_medt.io import atomic_write, write
from napari_medt.measure.volumes import volume_ml


def export(
    case: CaseFolder, path: Path, *, names: Mapping[int, str] | None = None, source: Volume | None = None
) -> tuple[Path, Path]:
    """Write the accepted mask, and a record of facts beside it.

    The record holds who accepted what and when, digests of image, mask and log, the structures with their volumes, the models
    that were run and with which settings, the files masks were taken from, how many changes were made by whom, and which slices
    were looked at.

    Parameters
    ----------
    case
        With a mask that is accepted and was not changed since.
    path
        Of the mask, as `io.write` takes it. The record has the same name with `.json` at its end.
    names
        Of the structures, by their value in the mask.
    source
        The image, which DICOM needs.

    Returns
    -------
    mask, record
        Where they are.

    Raises
    ------
    BadCase
        If the mask is not accepted, or the log is not as it was written.
    BadImage
        If such a file cannot hold the mask.
    StorageError
        If the disk refuses it.
    """
    found = case.recover()
    signed = case.card.sign_off
    if found is None or signed is None or case.status != "accepted":
        raise BadCase(f"The mask of {case.card.image} is not accepted", remedy="accept it first")
    if problem := case.verify():
        raise BadCase(problem.rstrip("."), remedy="look at the log before you rely on this mask")
    called = {value: (names or {}).get(value, "") for value in sorted({int(v) for v in np.unique(found.labels)} - {0})}
    mask = write(
        LabelMap(found.labels, case.geometry, {value: name for value, name in called.items() if name}),
        path,
        source=source,
    )
    record = mask.with_name(f"{mask.name}.json")
    last = case.log.add("exported", file=mask.name, mask=mask_digest(found.labels))
    facts = {
        "image": case.card.image,
        "image_digest": case.card.digest,
        "shape": case.card.shape,
        "spacing": case.card.spacing,
        "units": case.card.units,
        "mask": mask.name,
        "mask_digest": signed.mask,
        "accepted_by": signed.by,
        "accepted": signed.when,
        "remark": signed.remark,
        "structures": _structures(found.labels, called, case),
        **_history(case.log.lines(), found.labels.shape, case),
        "log_lines": last.number,
        "log_hash": last.hash,
    }
    atomic_write(record, json.dumps(facts, indent=2, ensure_ascii=False).encode())
    return mask, record


def _structures(labels: Array, names: Mapping[int, str], case: CaseFolder) -> list[dict[str, Any]]:
    """Each structure with its size, in millilitres where the image has a scale."""
    spacing = case.card.spacing
    found: list[dict[str, Any]] = []
    for value, name in names.items():
        inside = labels == value
        facts: dict[str, Any] = {"value": value, "name": name, "voxels": int(np.count_nonzero(inside))}
        if case.card.units == "mm" and labels.ndim == 3:
            facts["volume_ml"] = round(volume_ml(inside, spacing_mm=spacing), 4)
        found.append(facts)
    return found


def _history(lines: tuple[Line, ...], shape: tuple[int, ...], case: CaseFolder) -> dict[str, Any]:
    changes: dict[str, int] = {}
    for line in lines:
        if line.what == "edited":
            for by, count in line.facts["changes"].items():
                changes[by] = changes.get(by, 0) + count
    seen = {axis: told["share"] for axis, told in case.log.seen(shape).facts().items()}
    models = [{"when": line.time, **line.facts} for line in lines if line.what == "run"]
    files = [{"when": line.time, **line.facts} for line in lines if line.what == "loaded"]
    return {"models": models, "files": files, "changes": changes, "share_of_slices_seen": seen}
