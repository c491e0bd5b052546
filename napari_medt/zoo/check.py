"""The self-test: does a stored model still give what it gave when it was stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadModel, MedtError
from napari_medt.zoo.card import ModelCard
from napari_medt.zoo.store import SELFTEST, find_model, load_model

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-2
"""Largest difference allowed, in standard deviations of the stored logits: they are stored as float16, and other processors
and versions add in another order; a wrong weight or layer moves logits by whole standard deviations."""


@dataclass(frozen=True)
class CheckResult:
    """Outcome of a self-test: `difference` is in standard deviations of the logits, `problem` empty if all is well."""

    key: str
    difference: float | None
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether digest and result are right."""
        return not self.problem


def make_selftest(card: ModelCard, state: Mapping[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    """A seeded input `(c, *window)` uint8 with smooth blobs, and the logits the stored weights give for it."""
    from napari_medt.nets import create_net

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (card.in_channels, *(-(-edge // 8) for edge in card.window)), dtype=np.uint8)
    made = coarse
    for axis, edge in enumerate(card.window, start=1):
        made = made.repeat(8, axis=axis).take(range(edge), axis=axis)
    net = create_net(card.architecture, **card.net_options)
    net.load_state_dict(dict(state))
    return {"input": made, "expected": _run(net, made).astype(np.float16)}


def _run(net: Any, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        logits: npt.NDArray[np.float32] = net.eval()(torch.from_numpy(image.astype(np.float32) / 255)[None])[0].numpy()
    return logits


def check_model(name: str) -> CheckResult:
    """Verify the digest of a model's weights and run its self-test on the processor."""
    try:
        folder, card = find_model(name)
        model = load_model(folder, device="cpu")
        try:
            with np.load(folder / SELFTEST, allow_pickle=False) as test:
                image, expected = test["input"], test["expected"].astype(np.float32)
        except (OSError, ValueError, KeyError) as error:
            raise BadModel(f"The self-test of {card.key} is missing or damaged") from error
    except MedtError as error:
        return CheckResult(name, None, str(error))
    difference = float(np.abs(_run(model.net, image) - expected).max() / max(float(expected.std()), 1e-6))
    if not difference <= TOLERANCE:
        return CheckResult(
            card.key,
            difference,
            f"{card.key} gives other results on this computer than when it was stored ({difference:.2g} standard deviations).",
        )
    return CheckResult(card.key, difference)
