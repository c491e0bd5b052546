"""Tables in CSV form that say of cases which group, patient and side of the split they belong to."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from napari_medt.core import BadTrainingData
from napari_medt.io.names import without_ending
from napari_medt.training.datasets import Case, Side
from napari_medt.training.problems import Problem

_COLUMNS = {
    "case": ("file", "case", "image", "name", "id"),
    "group": ("group", "type", "kind"),
    "patient": ("patient", "patient_id", "subject", "subject_id", "field", "field_id", "group_id"),
    "split": ("split", "side", "subset"),
}
_SIDES: dict[str, Side] = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "ts", "held out", "held-out"), "test"),
    "": "",
}
Known = Literal["group", "patient", "split"]


@dataclass(frozen=True)
class Table:
    """What a CSV file says about cases: by the name in its first known column, `group`, `patient` and `split`."""

    name: str
    columns: frozenset[str]
    rows: Mapping[str, Mapping[str, str]]


def side_of(word: str) -> Side | None:
    """Side of a split that a word such as `"val"` stands for; `None` for an unknown one."""
    return _SIDES.get(word.strip().casefold())


def read_table(path: Path) -> Table | None:
    """Read a CSV file with commas, semicolons or tabs; `None` if no column names cases.

    Raises
    ------
    BadTrainingData
        If it cannot be read, or a case stands in it twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadTrainingData(f"{path.name} is not text in UTF-8", remedy="save it as CSV in UTF-8") from error
    except OSError as error:
        raise BadTrainingData(f"The table {path} cannot be read: {error.strerror}", remedy="check the file") from error
    heading = text.partition("\n")[0]
    reader = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=heading.count), skipinitialspace=True)
    titles = {(title or "").strip().casefold(): title for title in reader.fieldnames or ()}
    columns = {
        what: next((titles[title] for title in known if title in titles), None) for what, known in _COLUMNS.items()
    }
    key = columns.pop("case")
    if key is None:
        return None
    rows: dict[str, Mapping[str, str]] = {}
    for row in reader:
        name = PurePosixPath((row[key] or "").strip().replace("\\", "/")).name
        if name in rows:
            raise BadTrainingData(f"{name} stands twice in {path.name}", remedy="remove one of its rows")
        if name:
            rows[name] = {what: (row[title] or "").strip() for what, title in columns.items() if title is not None}
    return Table(path.name, frozenset(what for what, title in columns.items() if title is not None), rows)


def annotated(cases: Sequence[Case], table: Table) -> tuple[tuple[Case, ...], list[Problem]]:
    """Cases with what a table says of them, and what does not fit between the two.

    A row is about the case of that name, or with an image or mask of that file name. Columns the table does not have leave a
    case as it is.
    """
    taken: dict[str, Case] = {}
    problems: list[Problem] = []
    places = {name: case for case in reversed(cases) for name in _names(case)}
    for name, row in table.rows.items():
        case = places.get(name) or places.get(without_ending(Path(name).name))
        if case is None:
            what = f"{name} stands in {table.name}, but there is no image with a mask of that name"
            problems.append(Problem("warning", "row without files", what, "correct the table, or add the files"))
            continue
        side = side_of(row.get("split", ""))
        if side is None:
            what = f"{table.name} puts it into {row['split']!r}, which is no side of a split"
            problems.append(Problem("error", "side", what, "write train, validation or test", case.name))
        taken[case.name] = replace(
            case,
            group=row.get("group", case.group),
            patient=row.get("patient", case.patient),
            split=(side or "") if "split" in table.columns else case.split,
        )
    missing = [case.name for case in cases if case.name not in taken]
    problems += [
        Problem("warning", "no row", f"It does not stand in {table.name}", "add a row for it", name) for name in missing
    ]
    return tuple(taken.get(case.name, case) for case in cases), problems


def write_table(path: Path, cases: Iterable[Case]) -> Path:
    """Write the split as CSV with the columns file, group, field and split; a field is never split.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    import io

    from napari_medt.io import atomic_write

    listed = list(cases)
    names = [case.images[0].name for case in listed]
    if len(set(names)) < len(names):
        names = [case.name for case in listed]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "group", "field", "split"])
    writer.writerows(
        [name, case.group, case.patient or case.name, case.split] for name, case in zip(names, listed, strict=True)
    )
    return atomic_write(path, text.getvalue().encode())


def _names(case: Case) -> set[str]:
    return {case.name, case.labels.name, *(path.name for path in case.images)}
