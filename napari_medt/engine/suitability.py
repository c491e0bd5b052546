"""Does an image suit a model: what does not fit is said before the run, in a sentence each, with what would mend it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_medt.core import BadImage, Volume
from napari_medt.core.volume import default_channel_names
from napari_medt.engine.channels import Channels, fit_channels
from napari_medt.engine.looks import FUNDUS, SHIFT, looks_like, sampled
from napari_medt.engine.prepare import axes_for

if TYPE_CHECKING:
    from napari_medt.zoo.card import ModelCard

Array = npt.NDArray[Any]
SAMPLE = 500_000  # values that are looked at
COARSE, FINE = 2.0, 5.0  # how many times coarser or finer than the training images an image is told
FIELD = 2.0  # how many times larger or smaller a field of view is told
TINY = 0.25  # share of the edge of a window below which an image is told to be small
OUTSIDE = 0.5  # share of values beyond those of the training images that is told
FLAT = 0.05  # share of their range that values must at least span
_KINDS = {
    "CT": ("ct", "computed"),
    "MR": ("mr", "mri", "magnetic"),
    "PET": ("pt", "pet"),
    "ultrasound": ("us", "ultrasound"),
    "X-ray": ("cr", "dx", "x-ray", "radiography"),
    "mammography": ("mg", "mammography"),
    "microscopy": ("sm", "gm", "microscopy", "histology", "pathology"),
    FUNDUS: ("op", "fundus", "retina"),
}


@dataclass(frozen=True)
class Fix:
    """What one click does about a misfit.

    Attributes
    ----------
    kind
        `"take channels"` and `"shift values"` are done by `mend`. The others are for a person: `"other model"` to choose one,
        `"say spacing"` and `"say orientation"` to say what the file does not, `"choose region"` to segment a part.
    channels
        Which are taken.
    shift
        What is added to the values.
    """

    kind: Literal["take channels", "shift values", "other model", "say spacing", "say orientation", "choose region"]
    channels: tuple[int, ...] = ()
    shift: float = 0.0


@dataclass(frozen=True)
class Misfit:
    """Something about an image that does not suit a model.

    Attributes
    ----------
    what
        What does not fit, for people, without a closing full stop.
    remedy
        What they can do about it, as an imperative clause; may be empty.
    fix
        The same as one click, if there is one.
    """

    what: str
    remedy: str = ""
    fix: Fix | None = None

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}." if self.remedy else f"{self.what}."


def check(volume: Volume, card: ModelCard) -> tuple[Misfit, ...]:
    """What about an image does not suit a model, the most serious first; empty if all is well.

    Only a sample of the values is looked at.

    Parameters
    ----------
    volume
        The image, possibly lazily loaded.
    card
        Of the model. What it does not say is not checked.
    """
    return _misfits(volume, card, sampled(volume.array, at_most=SAMPLE)[0])


def suiting(volume: Volume, cards: Iterable[ModelCard]) -> tuple[ModelCard, ...]:
    """Those of the models that an image suits, as far as can be told, the best on held-out images first.

    Parameters
    ----------
    volume
        The image; a sample of its values is read once.
    cards
        Of the models to choose from. Left out are those made for other images and those that want other channels.
    """
    sample, _ = sampled(volume.array, at_most=SAMPLE)
    found = [
        card
        for card in cards
        if not isinstance(_channels(volume, card), Misfit)
        and not any(misfit.fix == Fix("other model") for misfit in _misfits(volume, card, sample))
    ]
    return tuple(sorted(found, key=_held_out, reverse=True))


def _held_out(card: ModelCard) -> float:
    """Mean Dice over all structures of all held-out images; 0 of a model that was never scored."""
    return max((score.dice for score in card.scores if score.group == "all" and not score.structure), default=0.0)


def _misfits(volume: Volume, card: ModelCard, sample: Array) -> tuple[Misfit, ...]:
    if card.spatial_dims > volume.geometry.ndim:
        what = "This is a 2D image, but the model segments whole 3D scans"
        return (Misfit(what, "open the whole scan, or choose a 2D model", Fix("other model")),)
    channels = _channels(volume, card)
    picked = (channels if isinstance(channels, Channels) else Channels((0,))).pick(sample)
    found = [channels] if isinstance(channels, Misfit) else []
    found += [*_names(volume, card, channels), *_modality(volume, card, picked), *_values(volume, card, picked)]
    found += [*_spacing(volume, card), *_field(volume, card), *_size(volume, card), *_position(volume, card)]
    return tuple(found)


def mend(volume: Volume, fix: Fix) -> Volume:
    """The image with a fix applied; the image given is left as it is.

    Raises
    ------
    ValueError
        If the fix is for a person.
    """
    if fix.kind == "take channels":
        taken = list(fix.channels)
        names = tuple(volume.channel_names[index] for index in taken)
        levels = tuple(level[taken] for level in volume.levels)
        return replace(volume, array=volume.array[taken], channel_names=names, levels=levels)
    if fix.kind == "shift values":
        acquisition = replace(volume.acquisition, value_unit="HU")
        levels = tuple(_shifted(level, fix.shift) for level in volume.levels)
        return replace(volume, array=_shifted(volume.array, fix.shift), acquisition=acquisition, levels=levels)
    raise ValueError(f"{fix.kind!r} is for a person")


def _shifted(array: Array, shift: float) -> Array:
    """Values shifted, in a type that holds them."""
    kind = array.dtype if array.dtype.kind == "f" else np.promote_types(array.dtype, np.int16)
    shifted: Array = array.astype(kind) + np.asarray(shift, dtype=kind)
    return shifted


# -------------------------------------------------------------------------------------------------------------- checks


def _channels(volume: Volume, card: ModelCard) -> Channels | Misfit:
    try:
        return fit_channels(volume, card)[0]
    except BadImage as error:
        count, wanted = volume.array.shape[0], card.in_channels
        if count > wanted == 1:
            remedy = f"take the first of them, {volume.channel_names[0]}, or another"
            return Misfit(error.what, remedy, Fix("take channels", channels=(0,)))
        if count < wanted:
            return Misfit(error.what, "open the files of the other channels together with this one")
        return Misfit(error.what, error.remedy)


def _names(volume: Volume, card: ModelCard, channels: Channels | Misfit) -> Iterator[Misfit]:
    """Channels that were taken in their order though they are called otherwise."""
    names = volume.channel_names
    if isinstance(channels, Misfit) or not isinstance(card.channels, tuple) or len(names) == 1:
        return
    known = names != default_channel_names(len(names))
    if known and {name.casefold() for name in card.channels} - {name.casefold() for name in names}:
        what = f"The channels are called {_listed(names)}, but the model was trained on {_listed(card.channels)}"
        yield Misfit(what, "make sure that they are the same, in this order")
    elif not known:
        yield Misfit(
            f"The file does not name its channels, but the model was trained on {_listed(card.channels)}",
            "make sure that they are these, in this order",
        )


def _modality(volume: Volume, card: ModelCard, sample: Array) -> Iterator[Misfit]:
    trained, said = _kind(card.modality), _kind(volume.acquisition.modality)
    known = volume.acquisition.modality or trained not in ("CT", "MR", "microscopy", FUNDUS)
    there = said or (None if known else looks_like(volume, sample))
    if trained and there and there != trained:
        is_it = "is" if said else "looks like"
        what = f"This {is_it} {there}, but the model was trained on {trained}"
        yield Misfit(what, f"choose a model for {there}", Fix("other model"))
    elif trained == FUNDUS and not there and not known:
        what = "This does not look like a photograph of the fundus, a disc in colour with a dark frame, as the model knows them"
        yield Misfit(what, "choose another model if it is none", Fix("other model"))
    elif card.spatial_dims == 2 and volume.geometry.ndim == 3 and volume.spatial_shape[0] > 1:
        what = "This is a 3D scan, but the model sees one slice at a time and nothing of its neighbours"
        yield Misfit(what, "choose a 3D model if there is one", Fix("other model"))


def _values(volume: Volume, card: ModelCard, sample: Array) -> Iterator[Misfit]:
    values = sample[np.isfinite(sample)].astype(np.float64)
    if not values.size:
        return
    low, high = float(values.min()), float(values.max())
    trained, there = _kind(card.modality), _kind(volume.acquisition.modality)
    may_be_ct = there == "CT" or (not there and looks_like(volume, sample) is None)
    if trained == "CT" and may_be_ct and volume.acquisition.value_unit != "HU" and low >= 0 and high >= SHIFT:
        what = f"The values begin at {low:g}, but those of CT begin at about -1000"
        yield Misfit(what, "subtract 1024, which is often added", Fix("shift values", shift=-SHIFT))
        return
    if card.value_range is None or card.intensity.kind in ("percentile", "zscore"):
        return  # these are found from each image by itself, so the range does not matter
    least, most = card.value_range
    span = most - least
    outside = float(np.mean((values < least - 0.1 * span) | (values > most + 0.1 * span)))
    if outside > OUTSIDE or high - low < FLAT * span:
        what = f"The values lie between {low:g} and {high:g}, but the model was trained on {least:g} to {most:g}"
        yield Misfit(what, "make sure that they have the same unit, or choose another model", Fix("other model"))


def _spacing(volume: Volume, card: ModelCard) -> Iterator[Misfit]:
    if card.spacing is None:
        return
    there = _along(volume, card, volume.geometry.spacing)
    wanted = _by(card.spacing, "mm")
    if there is None:
        what = f"The file does not say how far apart its samples are, but the model was trained on {wanted}"
        yield Misfit(what, "say how far apart they are", Fix("say spacing"))
        return
    ratios = np.asarray(there) / card.spacing
    text = f"The samples of this image are {_by(there, 'mm')} apart, but the model was trained on {wanted}"
    if ratios.max() > COARSE:
        yield Misfit(
            f"{text}, so small structures may be missed", "open a finer series of the same scan if there is one"
        )
    elif ratios.max() < 1 / FINE:
        yield Misfit(f"{text}, so it may show something else", "choose another model", Fix("other model"))


def _field(volume: Volume, card: ModelCard) -> Iterator[Misfit]:
    if card.field_of_view_mm is None:
        return
    sizes = [n * s for n, s in zip(volume.spatial_shape, volume.geometry.spacing, strict=True)]
    there = _along(volume, card, sizes)
    if there is None:
        return
    ratios = np.asarray(there) / card.field_of_view_mm
    there = [round(size) or size for size in there]
    text = f"This image shows {_by(there, 'mm')}, but the model was trained on about {_by(card.field_of_view_mm, 'mm')}"
    if ratios.min() < 1 / FIELD:
        yield Misfit(f"{text}, so it may not know where it is", "open the whole scan")
    elif ratios.max() > FIELD:
        remedy = "choose the region to segment"
        yield Misfit(f"{text}, so it may find things where it was never taught", remedy, Fix("choose region"))


def _size(volume: Volume, card: ModelCard) -> Iterator[Misfit]:
    """An image that fills so little of a window that the model sees hardly more than its mirror images."""
    if card.spacing is not None:
        return  # then samples are not what the model sees, and the field of view tells more
    axes = axes_for(volume, card)[0]
    there = [volume.spatial_shape[axis] for axis in axes.order][-card.spatial_dims :]
    if any(n < TINY * edge for n, edge in zip(there, card.window, strict=True)):
        seen = f"the model looks at {_by(card.window, 'px')} at once, so most of what it sees is this image mirrored"
        yield Misfit(f"This image is only {_by(there, 'px')}, and {seen}", "open a larger part of the picture")


def _position(volume: Volume, card: ModelCard) -> Iterator[Misfit]:
    if axes_for(volume, card)[1]:
        what = f"The file does not say how the patient lies, but the model was trained on scans that run {card.orientation}"
        yield Misfit(what, "say where the axes of the image run to", Fix("say orientation"))


def _along(volume: Volume, card: ModelCard, lengths: Sequence[float]) -> list[float] | None:
    """Lengths along the axes of the model, in mm; `None` where the file does not know them."""
    mm = volume.geometry.unit_mm
    if mm is None:
        return None
    axes = axes_for(volume, card)[0]
    return [lengths[axis] * mm for axis in axes.order][-card.spatial_dims :]


def _kind(text: str) -> str:
    """The kind of image a modality is, from DICOM's short names or the first word of plain text; empty if it is not known."""
    first = re.split(r"[^a-z-]+", text.casefold().strip())[0]
    return next((kind for kind, words in _KINDS.items() if first in words), "")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _by(lengths: Sequence[float], unit: str) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths) + f" {unit}"
