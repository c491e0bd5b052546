"""All cases of a data set looked at, side by side; what was found is kept in a file, so that the next time is quick."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from napari_medt.core import Cancel, Progress, silent
from napari_medt.io import atomic_write
from napari_medt.training.datasets import Case, DataSet, MaskRule
from napari_medt.training.facts import CaseFacts, look_at

VERSION = 2  # of the file


def look_at_all(
    dataset: DataSet,
    *,
    cases: Iterable[Case] | None = None,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    cancel: Cancel | None = None,
) -> list[CaseFacts]:
    """Look at the cases of a data set; no more than `workers` of them are in memory at a time.

    Parameters
    ----------
    dataset, cases
        All of its cases by default.
    cache
        JSON file that keeps what was found; files that have not changed since are not read again.
    workers
        Cases looked at side by side; by default one a processor core, at most 4.
    progress, cancel
        Told of, and looked at, between cases.

    Raises
    ------
    Cancelled
        If the user cancels; what was found until then is kept in `cache`.
    StorageError
        If `cache` cannot be written.
    """
    listed = list(dataset.cases if cases is None else cases)
    kept = _read_cache(cache)
    stamps = {case.name: _stamp(case, dataset.rule) for case in listed}
    known = {name: kept[stamp] for name, stamp in stamps.items() if stamp in kept}
    missing = [case for case in listed if case.name not in known]

    def look(case: Case) -> CaseFacts | None:
        return None if cancel is not None and cancel.is_set() else look_at(case, rule=dataset.rule)

    try:
        with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
            for done, (case, facts) in enumerate(zip(missing, pool.map(look, missing), strict=True)):
                if facts is None:
                    break
                known[case.name] = facts
                if cancel is not None and cancel.is_set():
                    continue  # what was looked at ahead is kept, but no more told
                progress(len(listed) - len(missing) + done + 1, len(listed), f"Looked at {case.name}")
    finally:
        if cache is not None and missing:
            _write_cache(cache, kept | {stamps[name]: facts for name, facts in known.items()})
    if cancel is not None:
        cancel.check()
    return [known[case.name].model_copy(update={"name": case.name}) for case in listed]


def _stamp(case: Case, rule: MaskRule) -> str:
    """What must be the same for an old finding to hold: the files, their sizes and times, and the rule."""
    said = [rule, *case.choose]
    for place in (*case.images, case.labels):
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            state = path.stat() if path.exists() else None
            said.append(f"{path.absolute()} {state.st_size} {state.st_mtime_ns}" if state else str(path))
    return hashlib.blake2b("\n".join(said).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _read_cache(path: Path | None) -> dict[str, CaseFacts]:
    """What an earlier look has found; a damaged or older file is passed over, since all can be found again."""
    if path is None or not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != VERSION:
            return {}
        return {stamp: CaseFacts.model_validate(facts) for stamp, facts in content["cases"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return {}


def _write_cache(path: Path, facts: dict[str, CaseFacts]) -> None:
    cases = {stamp: found.model_dump(mode="json", exclude_defaults=True) for stamp, found in facts.items()}
    atomic_write(path, json.dumps({"version": VERSION, "cases": cases}, separators=(",", ":")).encode())
