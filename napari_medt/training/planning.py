"""From what a data set is like to how a network is trained on it, in the spirit of nnU-Net (Isensee et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from napari_medt.core import BadTrainingData
from napari_medt.nets import create_net, list_nets
from napari_medt.nets.registry import NetInfo, Preset
from napari_medt.training.fingerprint import Fingerprint
from napari_medt.training.grid_plan import GridPlan, plan_grid
from napari_medt.training.net_cost import Cost, step_cost
from napari_medt.training.recipe import overlap
from napari_medt.zoo.card import Intensity

BATCH = 2  # at least, as in nnU-Net
MOST = 32
ENOUGH = 0.85  # of what is allowed, from which no larger window is looked for
SHARE_OF_DATA = 0.05  # of all voxels, that one batch may hold, as in nnU-Net
CROP = 0.8  # of the image, below which only the box around the body is learnt from
KINDS = {"ct": "CT", "mr": "MR", "microscopy": "microscopy", "fundus": "fundus photographs", "": ""}


class Plan(BaseModel):
    """How a network is to be trained; entries that cards and recipes have too are called and meant as there.

    Attributes
    ----------
    values
        Label values in the masks that make up a class, where these are not just the class's place in the list; `"any"` for all
        but 0.
    batch
        Windows in one step.
    foreground_share
        Of the windows drawn, how many are drawn around a structure.
    augmentation
        Name of a preset.
    memory_gb, step_gflop
        What a step takes, estimated.
    notes
        Sentences about what was decided and why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str
    net_options: dict[str, Any]
    classes: tuple[str, ...]
    values: dict[str, Literal["any"] | tuple[int, ...]] = {}
    channels: Literal["grey", "rgb"] | tuple[str, ...]
    modality: str = ""
    window: tuple[int, ...]
    batch: int = Field(ge=1)
    spacing: tuple[float, ...] | None = None
    orientation: str = ""
    crop: Literal["none", "foreground"] = "none"
    intensity: Intensity
    augmentation: Literal["microscopy", "fundus", "ct", "mr"]
    foreground_share: float = Field(ge=0, le=1)
    value_range: tuple[float, float] | None = None
    field_of_view_mm: tuple[float, ...] | None = None
    memory_gb: float = 0.0
    step_gflop: float = 0.0
    notes: tuple[str, ...] = ()


def plan(
    data: Fingerprint,
    net: str,
    *,
    preset: Preset = "small",
    memory_gb: float = 8.0,
    step_gflop: float | None = None,
) -> Plan:
    """Plan the training of a network.

    Parameters
    ----------
    data
        From `fingerprint`.
    net
        One of `list_nets()`.
    preset
        Of the network's options; `"small"` trains on a desktop's processor.
    memory_gb
        That a training step may take.
    step_gflop
        Billions of floating-point operations that a step may take, if that is limited: a processor core does some 20 a second,
        a large GPU 20,000.

    Raises
    ------
    BadModel
        If the network is unknown.
    BadTrainingData
        If the network takes no such images, or its smallest step goes beyond the limits.
    """
    info = _info(net)
    dims = _dims(data, info)
    crop: Literal["none", "foreground"] = "foreground" if data.dims == 3 and _body_share(data) < CROP else "none"
    grid = plan_grid(data, dims=dims, cropped=crop == "foreground")
    classes, values = _classes(data)
    channels = _channels(data)
    count = len(channels) if isinstance(channels, tuple) else {"grey": 1, "rgb": 3}[channels]
    outputs = len(classes) - overlap(data.regions.values())  # overlapping structures have no background beside them
    options = dict(info.presets.get(preset, {})) | {"in_channels": count, "num_classes": outputs}
    if "spatial_dims" in info.defaults:
        options["spatial_dims"] = dims
    if "img_size" in info.defaults:
        options["img_size"] = ()
    limits = _Limits(net, options, memory_gb, step_gflop)
    window, cost, notes = limits.window(grid.shape, info.multiple)
    batch = limits.batch(window, cost, at_most=len(data.cases) * float(np.prod(grid.full)) * SHARE_OF_DATA)
    if "img_size" in options:
        options["img_size"] = window
    intensity, preset_name, how = _treatment(data)
    return Plan(
        architecture=net,
        net_options=options,
        classes=classes,
        values=values,
        channels=channels,
        modality=KINDS[data.kind],
        window=window,
        batch=batch,
        spacing=grid.spacing,
        orientation=grid.orientation,
        crop=crop,
        intensity=intensity,
        augmentation=preset_name,
        foreground_share=_foreground_share(data.foreground),
        value_range=data.value_range if data.value_range[0] < data.value_range[1] else None,
        field_of_view_mm=_field(grid),
        memory_gb=round(cost.nbytes(batch) / 1e9, 2),
        step_gflop=float(f"{batch * cost.gflop_each:.3g}"),
        notes=(*grid.notes, *how, *notes),
    )


def _info(net: str) -> NetInfo:
    for info in list_nets():
        if info.name == net:
            return info
    create_net(net)  # says which names there are
    raise AssertionError(net)


def _dims(data: Fingerprint, info: NetInfo) -> Literal[2, 3]:
    if data.dims == 2 and 2 not in info.spatial_dims:
        raise BadTrainingData(
            f"{info.title} takes scans, but {data.name} holds 2D images", remedy="choose a network for 2D images"
        )
    return 3 if data.dims == 3 and 3 in info.spatial_dims else 2


def _body_share(data: Fingerprint) -> float:
    return float(np.median([np.prod(fact.body) / np.prod(fact.shape) for fact in data.cases]))


def _channels(data: Fingerprint) -> Literal["grey", "rgb"] | tuple[str, ...]:
    if len(data.channels) == 1:
        return "grey"
    colours = data.dims == 2 and len(data.channels) == 3
    return "rgb" if colours and data.channels in (("red", "green", "blue"), ("R", "G", "B")) else data.channels


def _classes(data: Fingerprint) -> tuple[tuple[str, ...], dict[str, Literal["any"] | tuple[int, ...]]]:
    """Names, background first, and the label values of those that are not in their place."""
    if data.regions:
        return ("background", *data.regions), dict(data.regions)
    inside = {value: size.name for value, size in data.classes.items() if value}
    if not inside:
        raise BadTrainingData(f"The masks of {data.name} are empty", remedy="draw masks first")
    names = (data.classes[0].name if 0 in data.classes else "background", *inside.values())
    if data.rule != "classes":
        return names, {names[1]: "any"}
    return names, {name: (value,) for place, (value, name) in enumerate(inside.items(), 1) if place != value}


def _treatment(data: Fingerprint) -> tuple[Intensity, Literal["microscopy", "fundus", "ct", "mr"], tuple[str, ...]]:
    """Intensities, the name of a preset of augmentation, and notes."""
    own = len(data.channels) > 1 and data.channels != ("red", "green", "blue")
    if data.kind == "ct" and data.values:
        low = float(np.floor(min(values.low for values in data.values)))
        high = float(np.ceil(max(values.high for values in data.values)))
        said = f"Values are cut to {low:g} to {high:g}, between which nearly all voxels of the structures lie."
        return Intensity(kind="clip", low=low, high=max(high, low + 1)), "ct", (said,)
    kind = data.kind or ("microscopy" if data.dims == 2 else "mr")
    notes = (
        () if data.kind else (f"What kind of image this is could not be told, so it is treated like {KINDS[kind]}.",)
    )
    pictures = kind in ("microscopy", "fundus")
    return Intensity(kind="percentile" if pictures else "zscore", per_channel=own), kind, notes


def _foreground_share(fraction: float) -> float:
    """A third as in nnU-Net; more where structures fill little of the image and most windows would be empty."""
    return 0.33 if fraction >= 0.05 else 0.5 if fraction >= 0.005 else 0.67


def _field(grid: GridPlan) -> tuple[float, ...] | None:
    if grid.spacing is None:
        return None
    return tuple(float(f"{n * s:.4g}") for n, s in zip(grid.shape, grid.spacing, strict=True))


class _Limits:
    """Windows and batches that stay within memory and work."""

    def __init__(self, net: str, options: dict[str, Any], memory_gb: float, step_gflop: float | None) -> None:
        self._net, self._options = net, options
        self._nbytes, self._gflop = memory_gb * 1e9, step_gflop or np.inf

    def _use(self, cost: Cost) -> float:
        """How much of what is allowed a step of the smallest batch takes; 1 is all."""
        return max(cost.nbytes(BATCH) / self._nbytes, BATCH * cost.gflop_each / self._gflop)

    def window(self, shape: Sequence[float], multiple: int) -> tuple[tuple[int, ...], Cost, tuple[str, ...]]:
        """The largest window of the shape of a usual image of which two fit the limits; its cost, and what to say about it.

        Few windows are looked at, as each takes seconds: between one that is too large and one that fits, what is used grows
        about as a power of the number of voxels.
        """
        sizes = _shrinking(shape, multiple)
        voxels = [float(np.prod(size)) for size in sizes]
        costs = {0: step_cost(self._net, self._options, sizes[0])}
        if self._use(costs[0]) <= 1:
            return sizes[0], costs[0], ()
        large, fits = 0, len(sizes) - 1
        costs[fits] = step_cost(self._net, self._options, sizes[fits])
        if self._use(costs[fits]) > 1:
            raise BadTrainingData(
                f"A step of {self._net} takes {costs[fits].nbytes(BATCH) / 1e9:.2g} GB and "
                f"{BATCH * costs[fits].gflop_each:.2g} GFLOP at least, which is beyond the limits",
                remedy="choose the preset small or another network, or allow more",
            )
        while fits - large > 1 and self._use(costs[fits]) < ENOUGH:
            use = np.log([self._use(costs[fits]), self._use(costs[large])])
            known = np.log([voxels[fits], voxels[large]])
            aim = np.exp(np.interp(np.log((1 + ENOUGH) / 2), use, known))
            middle = next(i for i in range(large, fits + 1) if i == fits or voxels[i] <= aim)
            middle = min(max(middle, large + 1), fits - 1)
            costs[middle] = step_cost(self._net, self._options, sizes[middle])
            large, fits = (large, middle) if self._use(costs[middle]) <= 1 else (middle, fits)
        what = " x ".join(map(str, sizes[fits]))
        note = f"Windows of {what} are used, as a whole image would go beyond the memory or the work allowed."
        return sizes[fits], costs[fits], (note,)

    def batch(self, window: Sequence[int], cost: Cost, *, at_most: float) -> int:
        """As many windows as the limits and `at_most` voxels allow, but two."""
        allowed = min((self._nbytes - cost.fixed) / cost.each, self._gflop / max(cost.gflop_each, 1e-9))
        return max(BATCH, int(min(allowed, at_most / float(np.prod(window)), MOST)))


def _shrinking(shape: Sequence[float], multiple: int) -> list[tuple[int, ...]]:
    """Windows from that of a whole image down to the smallest; the axis that is largest for the image's shape gives way."""
    window = [max(1, int(np.ceil(size / multiple - 1e-6))) for size in shape]
    relative = [max(size, 1.0) for size in shape]
    sizes = [tuple(n * multiple for n in window)]
    while max(window) > 1:
        free = [axis for axis, n in enumerate(window) if n > 1]
        axis = max(free, key=lambda a: (window[a] / relative[a], window[a]))
        window[axis] -= 1
        sizes.append(tuple(n * multiple for n in window))
    return sizes
