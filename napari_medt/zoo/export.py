"""Models for other programs: our own folder and single file, ONNX, and PyTorch's exported programs.

What is exported beside our own forms is the network alone, at the size of the card's window: what an image must go through
before is said by the card, which travels in the file.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadModel, MedtError
from napari_medt.zoo.card import ModelCard
from napari_medt.zoo.carrying import pack, parts_of, write_new
from napari_medt.zoo.shelf import CARD, SELFTEST, SINGLE, WEIGHTS

if TYPE_CHECKING:
    import torch
    from torch import nn

Form = Literal["folder", "file", "onnx", "torch", "bioimageio"]
ENDINGS: dict[str, Form] = {"": "folder", SINGLE: "file", ".onnx": "onnx", ".pt2": "torch", ".zip": "bioimageio"}
CLOSE = 1e-4  # by how much outputs may differ, where the largest is 1 or less; beyond, in proportion to it
Array = npt.NDArray[np.float32]


def export_model(source: str | PathLike[str], target: str | PathLike[str], *, form: Form | None = None) -> Path:
    """Write a model in a form that other programs read, or as a folder or single file of ours.

    Parameters
    ----------
    source
        Name, `name@version`, folder, single file or checkpoint, as for `load_model`.
    target
        Of which nothing may exist yet.
    form
        `"folder"` and `"file"` are ours, with card, weights and self-test. `"onnx"` and `"torch"` (for `torch.export.load`) are
        the network: `(1, c, *window)` float32, prepared as the card says, to logits `(1, outputs, *window)`; networks that are
        told where a window lies have a second input, its centre minus that of the image in samples, `(1, axes)`. `"bioimageio"` is
        a package of the BioImage Model Zoo around the same ONNX, with the preparation of images and a test. By default the
        ending of `target` says the form: none, `.medt`, `.onnx`, `.pt2`, `.zip`.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    BadModel, BadWeights
        If there is no such model, it is damaged, or its network cannot be written in this form.
    MedtError
        If the form is unknown, or a package it needs is not installed.
    StorageError
        If `target` is there already, or the disk is full or may not be written.
    """
    from napari_medt.zoo.weights import write_folder

    place = Path(target)
    chosen = form or ENDINGS.get(place.suffix.lower())
    if chosen not in get_args(Form):
        raise MedtError(
            f"No form of models is called {form!r}" if form else f"{place.name} does not say in which form to write",
            remedy=f"choose one of {', '.join(get_args(Form))}, or an ending of {', '.join(filter(None, ENDINGS))}",
        )
    taken = MedtError(f"There is {place} already", remedy="choose another name")
    if place.exists():
        raise taken
    card, parts = parts_of(source)
    if chosen == "folder":
        if not write_folder(place, parts):
            raise taken
    elif chosen == "file":
        write_new(place, pack(parts))
    elif chosen == "torch":
        write_new(place, _network(card, parts, _as_program))
    elif chosen == "onnx":
        write_new(place, _network(card, parts, _as_onnx))
    else:
        write_new(place, _as_package(card, parts))
    return place


Writer = Callable[["torch.export.ExportedProgram", ModelCard, tuple["torch.Tensor", ...]], tuple[bytes, Array]]


def _network(card: ModelCard, parts: dict[str, bytes], write: Writer) -> bytes:
    """The content of a file of the network, which was read again and gave the same logits."""
    import torch

    from napari_medt.nets import list_nets
    from napari_medt.zoo.store import build_net
    from napari_medt.zoo.weights import parse_state

    info = next(net for net in list_nets() if net.name == card.architecture)
    if not info.exports:
        raise BadModel(f"The network {info.name} cannot be exported", remedy="write it as a folder or a .medt file")
    net = build_net(card, parse_state(parts[WEIGHTS], where=card.key), what=card.key)
    inputs = _inputs(card, net, parts[SELFTEST])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own ways
        expected = net(*inputs).numpy()
        try:
            content, found = write(torch.export.export(net, inputs), card, inputs)
        except MedtError:
            raise
        except Exception as error:  # whatever an exporter meets in a network
            first = str(error).strip().partition("\n")[0].rstrip(".")
            raise BadModel(
                f"The network {info.name} cannot be written in this form ({first})",
                remedy="write it as a folder or a .medt file",
            ) from error
    difference = float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))
    if not difference <= CLOSE:
        raise BadModel(
            f"{card.key} was not exported: in this form it gives other results, by {difference:.1g}",
            remedy="write it as a folder or a .medt file",
        )
    return content


def _as_package(card: ModelCard, parts: dict[str, bytes]) -> bytes:
    from napari_medt.zoo.bioimage import pack_for_bioimage

    with np.load(io.BytesIO(parts[SELFTEST]), allow_pickle=False) as test:
        image = test["input"]
    return pack_for_bioimage(card, _network(card, parts, _as_onnx), image)


def _inputs(card: ModelCard, net: nn.Module, selftest: bytes) -> tuple[torch.Tensor, ...]:
    import torch

    with np.load(io.BytesIO(selftest), allow_pickle=False) as test:
        image = torch.from_numpy(test["input"].astype(np.float32) / 255)[None]
    place = torch.zeros(1, card.spatial_dims)
    return (image, place) if getattr(net, "takes_position", False) else (image,)


def _as_program(
    program: torch.export.ExportedProgram, card: ModelCard, inputs: tuple[torch.Tensor, ...]
) -> tuple[bytes, Array]:
    import torch

    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={CARD: card.model_dump_json(indent=1)})
    again = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    found: Array = again(*inputs).numpy()
    return buffer.getvalue(), found


def _as_onnx(
    program: torch.export.ExportedProgram, card: ModelCard, inputs: tuple[torch.Tensor, ...]
) -> tuple[bytes, Array]:
    import torch

    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch writes by it
    except ImportError as error:
        raise MedtError(
            f"ONNX needs packages that cannot be imported here ({error})",
            remedy='install them with: pip install "napari-medt[export]"',
        ) from error
    names = ["image", "position"][: len(inputs)]
    logging.getLogger("torch.onnx").setLevel(
        logging.ERROR
    )  # it warns of operators of packages that no network here needs
    made: Any = torch.onnx.export(
        program, (), dynamo=True, verbose=False, optimize=False, input_names=names, output_names=["logits"]
    )
    made.model.metadata_props[CARD] = card.model_dump_json()
    content: bytes = made.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})[0]
    return content, found
