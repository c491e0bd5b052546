"""What the present picture, mask and view give a tool: what its form can offer, and what its work is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from napari_medt.widgets import layers
from napari_medt.widgets.clicks import Point
from napari_medt.widgets.mask_editor import MaskEditor
from napari_medt.widgets.review import Review
from napari_medt.widgets.slice_shown import slice_shown
from napari_medt.widgets.tool_form import Offered
from napari_medt.widgets.tools import Scale, Wish


def offered_for(review: Review, work: MaskEditor, mask: Any) -> Offered:
    """Return what a form can offer now."""
    image = review.image
    masks = {layer.name: layer.data for layer in other_masks(review, work)}
    limits = None if image is None or image.rgb else tuple(float(level) for level in image.contrast_limits)
    return Offered(
        Scale.of(work.picture.geometry),
        {label: work.name_of(label) for label in work.structures},
        tuple(work.voxels),
        int(mask.selected_label),
        volume=len(work.shape) == 3,
        levels=limits,
        masks=masks,
    )


def other_masks(review: Review, work: MaskEditor) -> list[Any]:
    """Return the layers with masks of the present picture that the dock did not make."""
    from napari.layers import Labels

    return [
        layer
        for layer in review.viewer.layers
        if isinstance(layer, Labels)
        and not layers.is_ours(layer)
        and tuple(getattr(layer.data, "shape", ())) == work.shape
    ]


def wish_for(review: Review, points: Sequence[Point], given: Mapping[str, Any]) -> tuple[MaskEditor, Wish] | None:
    """Return the mask's editor and what a tool is told; `None` where there is nothing to work on.

    Parameters
    ----------
    review
        What is worked on.
    points
        Places that were clicked.
    given
        What the form says, by the fields of `Wish`.
    """
    work, image = review.work, review.image
    mask = work.mask if work is not None else None
    if work is None or mask is None or image is None:
        return None
    axis, index = slice_shown(review.viewer, image) or (0, 0)  # of a volume seen as a whole, the first
    value = int(mask.selected_label)
    wish = Wish(
        labels=work.labels,
        value=value,
        values=tuple(work.voxels) or (value,),
        named=work.structures,
        spacing=Scale.of(work.picture.geometry).spacing,
        axis=axis,
        index=min(max(index, 0), work.shape[axis] - 1),
        image=None if image.rgb else layers.level_0(image),
        points=tuple(points),
        **given,
    )
    return work, wish
