"""What images a model wants, in sentences for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from napari_medt.zoo.card import Intensity, ModelCard

_CHANNELS = {
    "grey": "One channel; colours are turned to grey.",
    "rgb": "Red, green and blue; a grey image is taken for all three.",
    "bgr": "Blue, green and red, in this order; a grey image is taken for all three.",
}


def requirements(card: ModelCard) -> list[str]:
    """What a card says of the images its model is for, a sentence each."""
    return list(_sentences(card))


def _sentences(card: ModelCard) -> Iterator[str]:
    kind = "2D images, or a scan slice by slice" if card.spatial_dims == 2 else "3D scans"
    yield f"{kind}, of any size; learnt in windows of {_by(card.window)}."
    named = ", ".join(card.channels)
    yield _CHANNELS[card.channels] if isinstance(card.channels, str) else f"Channels in this order: {named}."
    if card.modality:
        yield f"{card.modality[0].upper()}{card.modality[1:]}."
    if card.spacing is not None:
        seen = f"; the images it learnt from had {_by(card.training_spacing)} mm" if card.training_spacing else ""
        yield f"Any spacing, brought to {_by(card.spacing)} mm{seen}."
    if card.field_of_view_mm is not None:
        yield f"About as large a part of the body as it learnt from: {_by(card.field_of_view_mm)} mm."
    if card.orientation:
        yield f"Axes in any order, brought to {card.orientation}; the file must say how the patient lies."
    yield _of_values(card.intensity)
    if card.value_range is not None:
        yield "The images it learnt from had values of {:g} to {:g}.".format(*card.value_range)
    if card.crop == "foreground":
        yield "What lies outside the body is left out."


def _of_values(intensity: Intensity) -> str:
    each = " of each channel" if intensity.per_channel else ""
    match intensity.kind:
        case "percentile":
            return f"Any values: percentiles {intensity.low:g} to {intensity.high:g}{each} of the image become 0 to 1."
        case "zscore":
            return f"Any values: what is not 0 is brought to mean 0 and deviation 1{each}; 0 must mean nothing there."
        case "clip":
            return f"Values in their own unit, for CT Hounsfield units: {intensity.low:g} to {intensity.high:g} become 0 to 1."
        case "unit":
            return "Whole numbers, divided by the largest of their type."
    return "Values as the network was given them in its training."


def _by(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths)
