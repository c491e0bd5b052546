"""The command `export`: a model for other programs and other people."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_medt._cli.console import out, plain_errors


class FormName(StrEnum):
    """The forms of `export_model`."""

    FOLDER = "folder"
    FILE = "file"
    ONNX = "onnx"
    TORCH = "torch"
    BIOIMAGEIO = "bioimageio"


def export(
    model: Annotated[str, typer.Argument(help="Name, name@version, a model's folder, a .medt file or a checkpoint.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="What is written: a folder, or NAME.medt, NAME.onnx, NAME.pt2, NAME.zip."),
    ],
    form: Annotated[FormName | None, typer.Option(help="By default as the ending says.")] = None,
) -> None:
    """Write a model as a folder or a single file, as ONNX, as an exported program of PyTorch, or for the BioImage Model Zoo."""
    with plain_errors():
        from napari_medt.zoo import export_model

        written = export_model(model, output, form=form.value if form else None)
        size = sum(file.stat().st_size for file in (written.iterdir() if written.is_dir() else [written]))
        out.print(f"{model} -> {written} ({size / 1e6:.1f} MB)", highlight=False, markup=False)
