"""Pictures a model goes over again while it learns something new, so that it does not forget what it could."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from napari_medt.core import Geometry, Volume
from napari_medt.training.corrections import Correction
from napari_medt.training.modality import kind_named

if TYPE_CHECKING:
    from napari_medt.zoo import ModelCard

EDGE = 256


def rehearsal_for(card: ModelCard) -> list[Correction]:
    """The bundled synthetic pictures that are of a model's kind, without masks: the model that is taught labels them itself."""
    return [Correction(picture, None, group="rehearsal") for picture in _pictures(card)]


def _pictures(card: ModelCard) -> Iterator[Volume]:
    from napari_medt.sample_data import ct_phantom, fluorescence, tissue

    kind = kind_named(card.modality)
    if card.spatial_dims == 3:
        if kind == "ct" and card.in_channels == 1:
            array, options, _ = ct_phantom()[0]
            yield Volume.from_array(
                array, rgb=False, geometry=Geometry.from_spacing([float(step) for step in options["scale"]], units="mm")
            )
    elif kind in ("", "microscopy"):
        for sample in (fluorescence, tissue):
            array = sample()[0][0]
            y, x = ((size - min(size, EDGE)) // 2 for size in array.shape[:2])
            yield Volume.from_array(array[y : y + EDGE, x : x + EDGE])
