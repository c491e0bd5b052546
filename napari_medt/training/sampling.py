"""Windows for training: drawn evenly, around structures as often as wished, turned and varied.

Nothing is remembered from one window to the next: what the n-th window of a step is follows from the seed, the step and n
alone. So a run goes on after an interruption as if there had been none, several processes share a batch without changing
it, and windows can be made ahead by helpers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage

from napari_medt.core import BadTrainingData
from napari_medt.training.augmentation import Vary, variation
from napari_medt.training.recipe import Augmentation, Data
from napari_medt.zoo.card import Intensity

Floats = npt.NDArray[np.float32]
Box = tuple[Any, ...]  # an index of an array, all channels first
TURNED = 0.3  # share of the windows that are turned where turning is allowed
FLAT = 0.02  # range of values, 1 in the whole image, below which a window shows nothing that could be made brighter
PLACES = 20_000  # places of each class that are remembered


class Batch(NamedTuple):
    """Windows to learn from.

    Attributes
    ----------
    images
        `(n, c, *window)` float32.
    labels
        `(n, *window)` int64 class of every sample, or `(n, k, *window)` where classes overlap.
    positions
        `(n, dims)` float32: centre of each window minus that of its image, in samples, as it is after turning and mirroring.
    """

    images: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(part.to(device, non_blocking=True) for part in self))


def collate(windows: Sequence[Batch]) -> Batch:
    """One batch of single windows."""
    return Batch(*(torch.stack(part) for part in zip(*windows, strict=True)))


@dataclass(frozen=True, eq=False)
class Sample:
    """One image to draw from, on the grid of the model.

    Attributes
    ----------
    image
        `(c, *spatial)` float16, as the network wants it.
    labels
        `(*spatial)` class of every sample, or `(k, *spatial)` 1 where a class is, if classes overlap; uint8.
    group, unit
        Kind of image; what is never split between training and held out: a patient, a field of view.
    name
        For people.
    """

    image: npt.NDArray[np.float16]
    labels: npt.NDArray[np.uint8]
    group: str = ""
    unit: str = ""
    name: str = ""
    places: dict[int, npt.NDArray[np.int32]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Remember where the classes are."""
        if self.overlapping:
            masks = dict(enumerate(self.labels))
        else:
            masks = {value: self.labels == value for value in range(1, int(self.labels.max(initial=0)) + 1)}
        object.__setattr__(self, "places", some_places(masks))

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape."""
        return self.image.shape[1:]

    @property
    def overlapping(self) -> bool:
        """Whether a place can be of several classes."""
        return self.labels.ndim == self.image.ndim


def some_places(masks: Mapping[int, npt.NDArray[Any]]) -> dict[int, npt.NDArray[np.int32]]:
    """Where each mask `(*spatial)` is not 0, `(n, dims)`, spread evenly if there are many; empty ones are left out."""
    found = {}
    for value, mask in masks.items():
        where = np.flatnonzero(mask)
        if where.size:
            chosen = where[:: -(-where.size // PLACES)]
            found[value] = np.stack(np.unravel_index(chosen, mask.shape), axis=1).astype(np.int32)
    return found


class Drawing(Protocol):
    """What of a recipe decides how windows are drawn."""

    @property
    def seed(self) -> int:
        """Of all that is drawn."""

    @property
    def data(self) -> Data:
        """Shares of groups and of windows around structures."""

    @property
    def augmentation(self) -> Augmentation:
        """How windows are varied."""

    @property
    def window(self) -> tuple[int, ...]:
        """Of the model."""

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Of the model's grid, in mm."""

    @property
    def intensity(self) -> Intensity:
        """How the values of the images were scaled."""


class Sampler:
    """Makes windows of a recipe from images.

    Parameters
    ----------
    samples
        Images of the training side.
    recipe
        Its seed, data, augmentation and spacing are followed. Groups without a share of their own are left out if others have
        one.

    Raises
    ------
    BadTrainingData
        If no image is of a group that has a share.
    """

    def __init__(self, samples: Sequence[Sample], recipe: Drawing) -> None:
        weights = recipe.data.weights or dict.fromkeys((s.group for s in samples), 1.0)
        self._groups = [
            group for group, share in weights.items() if share > 0 and any(s.group == group for s in samples)
        ]
        if not self._groups:
            there = ", ".join(sorted({s.group or "no name" for s in samples}))
            raise BadTrainingData(
                f"The recipe gives a share of the windows to {', '.join(weights)}, but the images are of {there}",
                remedy="correct data.weights in the recipe, or the groups in the split file",
            )
        share = np.array([weights[group] for group in self._groups], dtype=float)
        self._share = share / share.sum()
        self._images = {group: [s for s in samples if s.group == group] for group in self._groups}
        self._units = {
            group: [[s for s in images if s.unit == unit] for unit in dict.fromkeys(s.unit for s in images)]
            for group, images in self._images.items()
        }
        self._seed, self._foreground, self._how = recipe.seed, recipe.data.foreground, recipe.augmentation
        dims = len(recipe.window)
        self._spacing = np.array(recipe.spacing or (1.0,) * dims)
        self._vary: Vary = variation(self._how.preset)
        self._percentiles = recipe.intensity.low, recipe.intensity.high

    def batch(self, step: int, size: int, window: tuple[int, ...]) -> Batch:
        """So many windows of one step."""
        return collate([self.window(step, index, window) for index in range(size)])

    def window(self, step: int, index: int, size: tuple[int, ...]) -> Batch:
        """One window, as a batch without its first axis; the same step and index always give the same."""
        rng = np.random.default_rng((self._seed, step + 2**32, index))
        sample = self.choose(rng)
        image, labels, position = self.cut(sample, size, rng)
        if self._how.own_range and rng.random() < self._how.own_range:
            image = own_range(image, self._percentiles)
        image = self._vary(image, rng)
        return Batch(torch.from_numpy(image), torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(position))

    def choose(self, rng: np.random.Generator) -> Sample:
        """An image, by the shares of groups; half of the time by unit, so that long series do not dominate."""
        group = self._groups[rng.choice(len(self._groups), p=self._share)]
        pool = self._images[group]
        if rng.random() < 0.5:
            units = self._units[group]
            pool = units[rng.integers(len(units))]
        return pool[rng.integers(len(pool))]

    def cut(
        self, sample: Sample, size: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[Floats, npt.NDArray[np.uint8], Floats]:
        """A window `(c, *size)` of one image, magnified, turned and mirrored, its classes likewise, and its position."""
        matrix = self._matrix(rng)
        reach = np.abs(matrix) @ (np.array(size) / 2)
        centre = self._centre(sample, reach, rng)
        if np.array_equal(matrix, np.eye(len(size))):
            centre = np.round(centre - reach) + reach  # windows on the grid need no interpolation
        image, labels = resampled(sample, centre, matrix, size)
        position = np.linalg.solve(matrix, centre - np.array(sample.shape) / 2).astype(np.float32)
        if self._how.quarter_turns and size[-1] == size[-2]:
            turns = int(rng.integers(4))
            image, labels = np.rot90(image, turns, (-2, -1)), np.rot90(labels, turns, (-2, -1))
            y, x = position[-2:]
            position[-2:] = ((y, x), (-x, y), (-y, -x), (x, -y))[turns]
        for axis in self._how.mirror:
            if rng.random() < 0.5:
                image, labels = np.flip(image, axis - len(size)), np.flip(labels, axis - len(size))
                position[axis] *= -1
        return np.ascontiguousarray(image), np.ascontiguousarray(labels), position

    def _matrix(self, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """From offsets in the window to offsets in the image."""
        dims = len(self._spacing)
        low, high = self._how.scale
        matrix: npt.NDArray[np.float64] = np.eye(dims) / np.exp(rng.uniform(np.log(low), np.log(high)))
        if self._how.rotate and rng.random() < TURNED:
            for plane in combinations(range(dims), 2):
                angle = np.deg2rad(rng.uniform(-self._how.rotate, self._how.rotate))
                turn = np.eye(dims)
                turn[np.ix_(plane, plane)] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
                matrix = matrix @ (turn * self._spacing / self._spacing[:, None])
        return matrix

    def _centre(
        self, sample: Sample, reach: npt.NDArray[np.float64], rng: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        """Around a structure or anywhere, in the image as far as there is room; edges of samples count, not middles."""
        size = np.array(sample.shape)
        centre = rng.uniform(0, size)
        if sample.places and rng.random() < self._foreground:
            classes = list(sample.places)
            places = sample.places[classes[rng.integers(len(classes))]]
            centre = places[rng.integers(len(places))] + 0.5 + rng.uniform(-0.5, 0.5, len(size)) * reach
        fitting: npt.NDArray[np.float64] = np.where(
            2 * reach < size, np.clip(centre, reach, np.maximum(reach, size - reach)), size / 2
        )
        return fitting


def own_range(image: Floats, percentiles: tuple[float, float]) -> Floats:
    """A window as it would look if its image showed nothing else: its own percentiles become 0 and 1; a flat one stays."""
    low, high = np.percentile(image, percentiles)
    return np.clip((image - low) / (high - low), 0, 1).astype(np.float32) if high - low > FLAT else image


def resampled(
    sample: Sample, centre: npt.NDArray[np.float64], matrix: npt.NDArray[np.float64], size: tuple[int, ...]
) -> tuple[Floats, npt.NDArray[np.uint8]]:
    """A window around a place of an image; beyond its edge the image goes on as its mirror image, and so do the classes.

    Parameters
    ----------
    centre
        Of the window, measured from the outer edge of the image.
    matrix
        From offsets in the window to offsets in the image; the identity cuts without interpolation where the window lies on
        the grid.
    size
        Of the window.
    """
    dims = len(size)
    reach = np.abs(matrix) @ (np.array(size) / 2)
    low = np.maximum(0, np.floor(centre - reach).astype(int) - 1)
    high = np.minimum(sample.shape, np.ceil(centre + reach).astype(int) + 1)
    start = centre - reach
    if np.array_equal(matrix, np.eye(dims)) and np.array_equal(start, np.round(start)):
        first = start.astype(int)
        if (first >= 0).all() and (first + size <= sample.shape).all():
            where: Box = (..., *(slice(s, s + n) for s, n in zip(first, size, strict=True)))
            return sample.image[where].astype(np.float32), sample.labels[where].copy()
    where = (..., *(slice(a, b) for a, b in zip(low, high, strict=True)))
    image, labels = sample.image[where].astype(np.float32), sample.labels[where]
    coarser = np.linalg.det(matrix) ** (1 / dims)
    if coarser > 1.2:  # what is made smaller is smoothed first, so that it does not shimmer
        image = ndimage.gaussian_filter(image, (0, *((coarser - 1) / 2,) * dims))
    grid = _grid(centre - low, matrix, size, image.shape[1:])
    moved = _sample(image, grid, "bilinear")
    classes = labels if labels.ndim == image.ndim else labels[None]
    kept = _sample(classes.astype(np.float32), grid, "nearest").astype(np.uint8)
    return moved, kept if labels.ndim == image.ndim else kept[0]


def _grid(
    centre: npt.NDArray[np.float64], matrix: npt.NDArray[np.float64], size: tuple[int, ...], shape: tuple[int, ...]
) -> torch.Tensor:
    """Places of the window's samples for `grid_sample`, `(1, *size, dims)`, last axis first, -1 and 1 at the outer edges."""
    offsets = np.stack(np.meshgrid(*(np.arange(n) + 0.5 - n / 2 for n in size), indexing="ij"), -1)
    places = (offsets @ matrix.T + centre) / np.array(shape) * 2 - 1
    return torch.from_numpy(np.ascontiguousarray(places[..., ::-1], dtype=np.float32))[None]


def _sample(array: Floats, grid: torch.Tensor, mode: str) -> npt.NDArray[Any]:
    values = torch.from_numpy(np.ascontiguousarray(array))[None]
    return F.grid_sample(values, grid, mode=mode, padding_mode="reflection", align_corners=False)[0].numpy()
