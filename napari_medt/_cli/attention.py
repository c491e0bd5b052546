"""The command `attention`: where a model looked, as a map in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from napari_medt._cli.console import out, plain_errors, progress_bar, stop_on_interrupt
from napari_medt._cli.wishes import Plane
from napari_medt.core import BadImage, MedtError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_medt.attention import Source
    from napari_medt.core import Volume


def attention(
    image: Annotated[Path | None, typer.Argument(metavar="IMAGE", help="The image.", show_default=False)] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="MAP", help="File of the map, whose ending says the format."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Name, name@version, a model's folder or a .pth checkpoint.")
    ] = "medt-nuclei",
    source: Annotated[
        str | None, typer.Option(help="What is asked, as --list names it; by default the first.", show_default=False)
    ] = None,
    head: Annotated[
        int | None, typer.Option(help="Counted from 0; by default the mean of all heads.", show_default=False)
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="Where it looked to describe this point, array indices from 0."),
    ] = None,
    structure: Annotated[
        str | None,
        typer.Option(metavar="MASK:LABEL", help="Where it looked to describe one label of a mask in a file."),
    ] = None,
    plane: Annotated[Plane | None, typer.Option(help="Which slices of a scan a 2D model goes through.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    check: Annotated[
        bool, typer.Option("--check", help="Say whether the map deserves belief: does the model need what it marks?")
    ] = False,
    of: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Class that --check asks about; by default the only one, or that of --structure.",
        ),
    ] = None,
    choose: Annotated[list[str] | None, typer.Option(help="Which of several, where the file leaves it open.")] = None,
    sources: Annotated[bool, typer.Option("--list", help="List what can be asked of the model, and stop.")] = False,
) -> None:
    """Write where a model looked: over the whole image, for one point or for one structure."""
    with plain_errors():
        from napari_medt.attention import list_sources
        from napari_medt.zoo import load_model

        loaded = load_model(model, device=device)
        if sources:
            out.print(_table(list_sources(loaded.net)))
            return
        if image is None or (output is None and not check):
            raise MedtError(
                "An image and -o MAP are needed",
                remedy="give both, --check instead of a file, or --list to see what can be asked of the model",
            )
        if query is not None and structure is not None:
            raise MedtError("A point and a structure are two questions", remedy="give --query or --structure")
        from napari_medt.attention import AttentionExplorer
        from napari_medt.io import read, write

        with stop_on_interrupt() as cancel, progress_bar() as report:
            volume = read(image, choose=choose or (), progress=report, cancel=cancel)
            explorer = AttentionExplorer(loaded, volume, plane=plane.value if plane else None)
            name, mask = source or explorer.sources()[0], None
            asked_class = class_asked(loaded.card.classes, of, structure) if check else 0
            if query is not None:
                found = explorer.pick(parse_point(query), source=name, head=head)[0]
            elif structure is not None:
                mask = read_label(structure, like=volume)
                found = explorer.structure(mask, source=name, head=head, progress=report, cancel=cancel)
            else:
                found = explorer.overview(name, head, progress=report, cancel=cancel)
            if output is not None:
                write(found.times_even, output, geometry=found.geometry)
            if check:
                from napari_medt.attention import check_faithfulness

                checked = check_faithfulness(
                    loaded, volume, found, structure=asked_class, region=mask, progress=report, cancel=cancel
                )
                found = checked.label(found)
        if output is not None:
            unit = "" if found.even is None else ", in times even attention"
            out.print(f"{name} -> {output}{unit}", highlight=False, markup=False)
        out.print(found.caption, highlight=False, markup=False)


def class_asked(classes: Sequence[str], name: str | None, structure: str | None) -> int:
    """Label of the class that a check is about.

    Raises
    ------
    MedtError
        If there is none of this name, or several to choose from.
    """
    if name is not None and name in classes[1:]:
        return classes.index(name)
    if name is None and structure is not None:
        return int(structure.rpartition(":")[2] or 0)
    if name is None and len(classes) == 2:
        return 1
    raise MedtError(
        "It must be said which class the check is about" if name is None else f"The model has no class {name!r}",
        remedy="give --class " + " or ".join(classes[1:]),
    )


def parse_point(text: str) -> tuple[int, ...]:
    """Understand a point such as `12,80,64`.

    Raises
    ------
    MedtError
        If it is none.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise MedtError(
            f"The point {text!r} is none", remedy="give an index for each axis of the image, such as 12,80,64"
        ) from None


def read_label(text: str, *, like: Volume) -> npt.NDArray[np.bool_]:
    """Where one label of a mask is on the grid of an image, from words such as `mask.nii.gz:2`.

    Raises
    ------
    MedtError
        If it names no label, or the mask has none of this value.
    """
    from napari_medt.io import read_segmentation

    path, _, value = text.rpartition(":")
    if not path or not value.isdigit():
        raise MedtError(f"{text!r} names no label of a mask", remedy="give file and value, such as mask.nii.gz:2")
    for mask in read_segmentation(Path(path), like=like):
        inside: npt.NDArray[np.bool_] = mask.array == int(value)
        if inside.any():
            return inside
    raise BadImage(f"The mask {path} has no label {value}", remedy="choose a label that it has")


def _table(sources: tuple[Source, ...]) -> Table:
    table = Table("Source", "Kind", "Heads", "Halvings of the image", box=None, pad_edge=False, header_style="bold")
    for source in sources:
        table.add_row(*map(escape, (source.name, source.kind, str(source.heads), str(source.level))))
    return table
