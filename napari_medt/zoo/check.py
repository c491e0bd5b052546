"""The self-test: does a stored model still give what it gave when it was stored."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadModel, MedtError
from napari_medt.zoo.card import NOTICE, ModelCard
from napari_medt.zoo.shelf import SELFTEST, WEIGHTS, bundled_folder, locate
from napari_medt.zoo.store import load_folder

if TYPE_CHECKING:
    from torch import nn

LARGEST = 8_000_000
"""Bytes that the weights of a bundled model may take."""

TOLD = ("modality", "training_data", "recipe", "attribution", "licence", "citation", "intended_use", "limits", "scores")
"""What the card of a bundled model must say."""

TOLERANCE = 1e-2
"""Largest difference allowed, in standard deviations of the stored logits.

The stored logits were computed with the weights as they are stored, so only two things may differ: other processors and
versions of torch add in another order (about 1e-6 over thread counts, kernels and float64), and the rounding of the stored
logits, which is allowed for apart. That leaves room for processors that multiply more coarsely, and none for a changed layer.
"""


@dataclass(frozen=True)
class CheckResult:
    """Outcome of a self-test.

    Attributes
    ----------
    key
        `name@version`.
    difference
        Largest difference of the logits in standard deviations of the stored ones; `None` if the model could not be run.
    problem
        A sentence for the user; empty if all is well.
    """

    key: str
    difference: float | None
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether digest and result are right."""
        return not self.problem


def make_selftest(card: ModelCard, net: nn.Module) -> dict[str, npt.NDArray[Any]]:
    """A seeded input `(c, *window)` uint8 of squares, and the logits of `net` for it, float16 if these fit into it."""
    rng = np.random.default_rng(0)
    made = rng.integers(0, 256, (card.in_channels, *(-(-edge // 8) for edge in card.window)), dtype=np.uint8)
    for axis, edge in enumerate(card.window, start=1):
        made = made.repeat(8, axis=axis).take(range(edge), axis=axis)
    logits = _run(net, made)
    fits = bool(np.abs(logits).max() < np.finfo(np.float16).max)
    return {"input": made, "expected": logits.astype(np.float16) if fits else logits}


def _run(net: nn.Module, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        logits: npt.NDArray[np.float32] = net.eval()(torch.from_numpy(image.astype(np.float32) / 255)[None])[0].numpy()
    return logits


def check_model(name: str) -> CheckResult:
    """Verify the digest of a model's weights and run its self-test on the processor; of a bundled one, see what it must say.

    Parameters
    ----------
    name
        `"medt-nuclei"`, with a version, `"medt-nuclei@3"`, or a model folder.

    Returns
    -------
    CheckResult
        A damaged model is a result, not an error.
    """
    key = name
    try:
        folder, card = locate(name)
        key = card.key
        image, expected = _read_selftest(folder / SELFTEST, card)
        found = _run(load_folder(folder, card, device="cpu").net, image)
    except MedtError as error:
        return CheckResult(key, None, str(error))
    rounding = float(np.finfo(expected.dtype).eps) * float(np.abs(expected.astype(np.float64)).max())
    spread = max(float(expected.std(dtype=np.float64)), rounding, 1e-6)
    difference = float(np.abs(found - expected.astype(np.float32)).max()) / spread
    if not difference <= TOLERANCE + rounding / spread:
        return CheckResult(
            key,
            difference,
            f"{key} gives other results on this computer than when it was stored "
            f"(they differ by {difference:.2g} standard deviations); install torch again, or take another version of it.",
        )
    lacks = shortcomings(card, (folder / WEIGHTS).stat().st_size) if bundled_folder() in folder.parents else []
    return CheckResult(key, difference, f"{key} cannot be bundled as it is: {'; '.join(lacks)}." if lacks else "")


def shortcomings(card: ModelCard, size: int) -> list[str]:
    """What a model lacks to be given to everybody, a clause each; `size` is that of its weights, in bytes."""
    found = [f"its card says nothing of {entry}" for entry in TOLD if not getattr(card, entry)]
    if NOTICE not in card.intended_use:
        found.append(f"its intended use does not say {NOTICE!r}")
    if size > LARGEST:
        found.append(f"its weights take {size / 1e6:.1f} MB, more than {LARGEST / 1e6:g}")
    return found


def _read_selftest(path: Path, card: ModelCard) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.floating[Any]]]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as test:
            image, expected = test["input"], test["expected"]
    except Exception as error:  # a damaged archive may raise anything
        raise BadModel(
            f"The self-test of {card.key} is missing or damaged", remedy="restore the model's folder from a copy"
        ) from error
    fits = image.shape[:1] == (card.in_channels,) and expected.shape == (card.outputs, *image.shape[1:])
    if not fits or image.dtype != np.uint8 or expected.dtype.kind != "f" or image.ndim != card.spatial_dims + 1:
        raise BadModel(
            f"The self-test of {card.key} does not fit its card: an input of shape {image.shape} and a result of "
            f"{expected.shape} for {card.in_channels} channels and {card.outputs} outputs",
            remedy="restore the model's folder from a copy",
        )
    return image, expected
