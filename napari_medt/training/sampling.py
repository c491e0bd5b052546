"""Windows for training: drawn evenly, with some foreground, and varied as microscopes and stains vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage

Floats = npt.NDArray[np.float32]
FOREGROUND = 0.7  # share of the windows that are looked for until they hold some foreground
TRIES = 5  # windows looked at for one with enough of it
MIN_FOREGROUND = 0.02


@dataclass(frozen=True, eq=False)
class Sample:
    """One image to draw from.

    Attributes
    ----------
    image
        `(c, y, x)` float16 in [0, 1].
    labels
        `(y, x)` class of every pixel, uint8.
    group, field
        Image type; field of view.
    """

    image: npt.NDArray[np.float16]
    labels: npt.NDArray[np.uint8]
    group: str
    field: str


class Sampler:
    """Draws batches of windows from a seeded stream.

    Parameters
    ----------
    samples
        Images of the training side.
    weights
        Share of windows by group; groups without images are left out.
    scales
        Range of magnification by group, (0.5, 2) where none is given.
    seed
        The same seed gives the same batches.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        weights: Mapping[str, float],
        scales: Mapping[str, tuple[float, float]],
        seed: int,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self._scales = scales
        self._groups = [group for group in weights if any(s.group == group for s in samples)]
        share = np.array([weights[group] for group in self._groups], dtype=float)
        self._share = share / share.sum()
        self._images = {group: [s for s in samples if s.group == group] for group in self._groups}
        self._fields = {
            group: [[s for s in images if s.field == field] for field in dict.fromkeys(s.field for s in images)]
            for group, images in self._images.items()
        }

    def batch(self, size: int, window: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(size, c, window, window)` float32 and classes `(size, window, window)` int64."""
        drawn = [self._draw(window) for _ in range(size)]
        return torch.stack([image for image, _ in drawn]), torch.stack([labels for _, labels in drawn])

    def _draw(self, window: int) -> tuple[torch.Tensor, torch.Tensor]:
        group = self._groups[self.rng.choice(len(self._groups), p=self._share)]
        pool = self._images[group]
        if self.rng.random() < 0.5:  # half of the time by field of view, so that series of crops do not dominate
            fields = self._fields[group]
            pool = fields[self.rng.integers(len(fields))]
        sample = pool[self.rng.integers(len(pool))]
        image, labels = self._crop(sample, window)
        image, labels = self._turn(image, labels)
        return torch.from_numpy(self._vary(image.numpy())), labels

    def _crop(self, sample: Sample, window: int) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = self._scales.get(sample.group, (0.5, 2.0))
        height, width = sample.labels.shape
        for _ in range(TRIES if self.rng.random() < FOREGROUND else 1):
            scale = np.exp(self.rng.uniform(np.log(low), np.log(high)))
            edge = min(max(16, round(window / scale)), height, width)
            y, x = self.rng.integers(height - edge + 1), self.rng.integers(width - edge + 1)
            labels = sample.labels[y : y + edge, x : x + edge]
            if np.count_nonzero(labels) > MIN_FOREGROUND * labels.size:
                break
        image = torch.from_numpy(sample.image[:, y : y + edge, x : x + edge].astype(np.float32))
        image = F.interpolate(image[None], (window, window), mode="bilinear", antialias=edge > window)[0]
        rows = (np.arange(window) + 0.5) * edge / window
        nearest = np.minimum(rows.astype(int), edge - 1)
        return image, torch.from_numpy(labels[np.ix_(nearest, nearest)].astype(np.int64))

    def _turn(self, image: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        quarter = int(self.rng.integers(4))
        image, labels = torch.rot90(image, quarter, (1, 2)), torch.rot90(labels, quarter, (0, 1))
        if self.rng.random() < 0.5:
            image, labels = image.flip(2), labels.flip(1)
        return image.contiguous(), labels.contiguous()

    def _vary(self, image: Floats) -> Floats:
        """Another microscope, lamp and stain: colour, light, contrast, focus and noise."""
        rng = self.rng
        channels = (len(image), 1, 1)
        if rng.random() < 0.2:  # a colour image taken in grey
            image = np.repeat(image.mean(0, keepdims=True), len(image), axis=0)
        if np.ptp(image, axis=0).max() > 0 and rng.random() < 0.7:  # another stain
            image = image * _uniform(rng, 0.7, 1.2, channels)
            mixing = np.eye(len(image), dtype=np.float32) + _uniform(rng, -0.15, 0.15, (len(image), len(image)))
            image = np.einsum("dc,cyx->dyx", mixing, image)
        if rng.random() < 0.05:
            image = 1 - image
        if rng.random() < 0.3:  # paler, over a background of any tone
            share = _uniform(rng, 0.3, 1.0)
            image = share * image + (1 - share) * _uniform(rng, 0.0, 1.0, channels)
        if rng.random() < 0.2:  # light that falls off to one side
            y, x = np.linspace(-1, 1, image.shape[1]), np.linspace(-1, 1, image.shape[2])
            slope = y[:, None] * rng.uniform(-0.3, 0.3) + x * rng.uniform(-0.3, 0.3)
            image = image * (1 + slope).astype(np.float32)
        image = np.clip(image * _uniform(rng, 0.6, 1.3) + _uniform(rng, -0.1, 0.1), 0, 1)
        image = image ** np.float32(2 ** rng.uniform(-1.0, 1.0))
        if rng.random() < 0.2:
            sigma = rng.uniform(0.3, 1.2)
            image = ndimage.gaussian_filter(image, (0, sigma, sigma))
        if rng.random() < 0.3:
            image = image + rng.standard_normal(image.shape, dtype=np.float32) * _uniform(rng, 0.0, 0.06)
        return np.clip(image, 0, 1).astype(np.float32)


def _uniform(rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...] = ()) -> Floats:
    return np.asarray(rng.uniform(low, high, shape), dtype=np.float32)
