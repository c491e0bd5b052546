"""Models as packages of the BioImage Model Zoo, for programs that read those: ilastik, deepImageJ, BiaPy and others.

A package is a zip of the network as ONNX, a description by the format 0.5 of https://github.com/bioimage-io/spec-bioimage-io,
and a test image with its result. What an image goes through before and after the network is described in that format's own steps;
a model that needs a step it does not know is refused.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadModel, MedtError
from napari_medt.zoo.card import NOTICE, Intensity, ModelCard

Floats = npt.NDArray[np.float32]
EPS = 1e-6  # of the format's scaling by percentiles
NAMES = {"grey": ("grey",), "rgb": ("red", "green", "blue"), "bgr": ("blue", "green", "red")}


def pack_for_bioimage(card: ModelCard, onnx: bytes, image: npt.NDArray[np.uint8]) -> bytes:
    """The content of a package.

    Parameters
    ----------
    card
        Of the model.
    onnx
        Its network, from `image` to `logits`, for windows of the card's size.
    image
        `(c, *window)`, for the test that comes with the package.

    Raises
    ------
    BadModel
        If the format knows no such preparation of images, or no such network.
    MedtError
        If `bioimageio.spec` or `onnxruntime` is not installed.
    """
    try:
        import onnxruntime
        from bioimageio.spec import save_bioimageio_package
        from bioimageio.spec.model import v0_5
    except ImportError as error:
        raise MedtError(
            f"Packages of the BioImage Model Zoo need what cannot be imported here ({error})",
            remedy='install it with: pip install "napari-medt[export]"',
        ) from error
    before = _before(v0_5, card)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    if len(session.get_inputs()) > 1:
        raise BadModel(
            f"{card.key} cannot be a package of the BioImage Model Zoo: its network is told where a window lies in the image",
            remedy="write it as .onnx",
        )
    raw = image[None].astype(np.float32)
    logits = session.run(["logits"], {"image": _prepared(card.intensity, raw)})[0]
    with tempfile.TemporaryDirectory(prefix="napari-medt-") as name:
        folder = Path(name)
        (folder / "network.onnx").write_bytes(onnx)
        (folder / "README.md").write_text(_document(card), encoding="utf-8")
        np.save(folder / "input.npy", raw)
        np.save(folder / "output.npy", _chances(card, logits))
        described = v0_5.ModelDescr(
            name=re.sub(r"[^\w +().-]", " ", card.title),
            description=card.description,
            authors=[v0_5.Author(name=card.attribution or "unknown")],
            cite=_cited(v0_5, card),
            license=_licence(card),
            documentation=v0_5.FileDescr(source=folder / "README.md"),
            tags=["semantic-segmentation", f"{card.spatial_dims}d", "attention", card.architecture],
            inputs=[
                v0_5.InputTensorDescr(
                    id=v0_5.TensorId("image"),
                    axes=_axes(v0_5, card, _channels(card), v0_5.SpaceInputAxis),
                    preprocessing=before,
                    test_tensor=v0_5.FileDescr(source=folder / "input.npy"),
                )
            ],
            outputs=[
                v0_5.OutputTensorDescr(
                    id=v0_5.TensorId("probabilities"),
                    axes=_axes(v0_5, card, card.classes[-card.outputs :], v0_5.SpaceOutputAxis),
                    postprocessing=_after(v0_5, card),
                    test_tensor=v0_5.FileDescr(source=folder / "output.npy"),
                )
            ],
            weights=v0_5.WeightsDescr(
                onnx=v0_5.OnnxWeightsDescr(source=folder / "network.onnx", opset_version=_opset(onnx))
            ),
        )
        save_bioimageio_package(described, output_path=folder / "package.zip")
        return (folder / "package.zip").read_bytes()


def _channels(card: ModelCard) -> tuple[str, ...]:
    return NAMES[card.channels] if isinstance(card.channels, str) else card.channels


def _axes(v0_5: Any, card: ModelCard, channels: tuple[str, ...], space: Any) -> list[Any]:
    lengths = card.spacing or (None,) * card.spatial_dims
    return [
        v0_5.BatchAxis(size=1),
        v0_5.ChannelAxis(channel_names=[re.sub(r"\W+", "_", name) for name in channels]),
        *(
            space(
                id=v0_5.AxisId(axis), size=size, **({} if length is None else {"unit": "millimeter", "scale": length})
            )
            for axis, size, length in zip("zyx"[-card.spatial_dims :], card.window, lengths, strict=True)
        ),
    ]


def _before(v0_5: Any, card: ModelCard) -> list[Any]:
    """The card's treatment of intensities in the format's steps."""
    how = card.intensity
    zero_to_one = v0_5.ClipDescr(kwargs=v0_5.ClipKwargs(min=0.0, max=1.0))
    if how.kind == "percentile":
        axes = [*(() if how.per_channel else ("channel",)), *"zyx"[-card.spatial_dims :]]
        kwargs = v0_5.ScaleRangeKwargs(
            axes=[v0_5.AxisId(axis) for axis in axes], min_percentile=how.low, max_percentile=how.high, eps=EPS
        )
        return [v0_5.ScaleRangeDescr(kwargs=kwargs), zero_to_one]
    if how.kind == "clip":
        gain = 1 / (how.high - how.low)
        return [v0_5.ScaleLinearDescr(kwargs=v0_5.ScaleLinearKwargs(gain=gain, offset=-how.low * gain)), zero_to_one]
    if how.kind == "unit":
        return [v0_5.ScaleLinearDescr(kwargs=v0_5.ScaleLinearKwargs(gain=1 / 255, offset=0.0))]
    if how.kind == "none":
        return []
    raise BadModel(
        f"{card.key} cannot be a package of the BioImage Model Zoo: it scales by what is not 0, which that format does not know",
        remedy="write it as .onnx and prepare images as its card says",
    )


def _prepared(how: Intensity, raw: Floats) -> Floats:
    """What the format's steps of `_before` make of an image `(1, c, *spatial)`."""
    scaled = raw.astype(np.float64)
    if how.kind == "percentile":
        axes = tuple(range(2 if how.per_channel else 1, raw.ndim))
        low, high = np.percentile(scaled, (how.low, how.high), axis=axes, keepdims=True)
        scaled = np.clip((scaled - low) / (high - low + EPS), 0, 1)
    elif how.kind == "clip":
        scaled = np.clip((scaled - how.low) / (how.high - how.low), 0, 1)
    elif how.kind == "unit":
        scaled /= 255
    return scaled.astype(np.float32)


def _after(v0_5: Any, card: ModelCard) -> list[Any]:
    if card.overlapping or card.outputs == 1:
        return [v0_5.SigmoidDescr()]
    return [v0_5.SoftmaxDescr(kwargs=v0_5.SoftmaxKwargs(axis=v0_5.AxisId("channel")))]


def _chances(card: ModelCard, logits: Floats) -> Floats:
    from scipy.special import expit, softmax

    found: Floats = expit(logits) if card.overlapping or card.outputs == 1 else softmax(logits, axis=1)
    return found.astype(np.float32)


def _opset(onnx: bytes) -> int:
    import onnx as library

    imports = library.load_model_from_string(onnx).opset_import
    return int(next(entry.version for entry in imports if entry.domain in ("", "ai.onnx")))


def _licence(card: ModelCard) -> Any:
    """The licence of the weights, if the card names one the format knows."""
    from bioimageio.spec.model.v0_5 import LicenseId

    found = re.search(r"([\w.+-]+) \(weights\)", card.licence)
    try:
        return LicenseId(found[1] if found else card.licence)
    except ValueError:
        return None


def _cited(v0_5: Any, card: ModelCard) -> list[Any]:
    doi = re.search(r"10\.\d{4,}/\S+[^\s.,;]", card.citation)
    return [v0_5.CiteEntry(text=card.citation, doi=v0_5.Doi(doi[0]))] if doi else []


def _document(card: ModelCard) -> str:
    """The card as a page of text."""
    rows = {
        "Intended use": card.intended_use or NOTICE,
        "Limits": card.limits,
        "Images it is for": card.modality,
        "Learnt from": card.training_data,
        "Made by": card.recipe,
        "Images by": card.attribution,
        "Licence": card.licence,
        "Cite": card.citation,
    }
    space = f"{' x '.join(map(str, card.window))} samples"
    if card.spacing:
        space += f", {' x '.join(f'{length:g}' for length in card.spacing)} mm apart"
    scores = [
        f"- {score.group}{', ' + score.structure if score.structure else ''}: Dice {score.dice:.3f} (n = {score.images})"
        for score in card.scores
    ]
    return "\n\n".join(
        [
            f"# {card.title}",
            card.description,
            f"Takes windows of {space}{', axes to ' + card.orientation if card.orientation else ''}; gives the probabilities of "
            + ", ".join(card.classes[-card.outputs :])
            + ".",
            *(f"**{title}.** {text}" for title, text in rows.items() if text),
            *(["## Scores on unseen images", "\n".join(scores)] if scores else []),
        ]
    )
