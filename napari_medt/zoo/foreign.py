"""Checkpoints of other people's implementations, mapped to our networks by their keys and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_medt.core import BadWeights
from napari_medt.zoo.forms import FORMS, Form, Shapes

if TYPE_CHECKING:
    from torch import Tensor

REMEDY = "give an unchanged checkpoint of the released implementation, or a model folder saved by this plugin"


@dataclass(frozen=True)
class ForeignCheckpoint:
    """A foreign checkpoint in our terms.

    Attributes
    ----------
    architecture, net_options
        For `create_net`.
    state_dict
        With our keys, float32.
    spatial_dims
        2 or 3.
    channels
        Channel order the network expects: `"bgr"`, `"rgb"`, `"grey"`, or numbered channels.
    notes
        What a user should know.
    """

    architecture: str
    net_options: dict[str, Any]
    state_dict: dict[str, Tensor]
    spatial_dims: Literal[2, 3]
    channels: Literal["grey", "rgb", "bgr"] | tuple[str, ...]
    notes: tuple[str, ...]


def recognise(shapes: Shapes, arch: str | None = None) -> tuple[Form, str, dict[str, Any]]:
    """The form of a state dict, our architecture and its options.

    Raises
    ------
    BadWeights
        If it is of no known form; names the nearest form and the first of its keys that is missing or differs.
    """
    found = [(form, *match) for form in FORMS if (match := form.recognise(shapes)) is not None]
    wanted = [one for one in found if arch in (None, one[1])]
    if wanted:
        return wanted[0]
    if found:
        raise BadWeights(f"The checkpoint holds {found[0][1]}, not {arch}", remedy="leave the architecture out")

    def nearness(form: Form) -> float:
        return sum(key in shapes for key in form.signature) / len(form.signature)

    nearest = max(FORMS, key=nearness)
    missing = [key for key in nearest.signature if key not in shapes]
    problem = (
        f"the key {missing[0]!r} is missing"
        if missing
        else f"the key {nearest.signature[0]!r} or another is of an unknown shape"
    )
    raise BadWeights(
        f"This checkpoint is of no known form; the nearest is {nearest.name}, but {problem} "
        f"(the file begins with {next(iter(shapes), 'nothing')!r})",
        remedy=REMEDY,
    )


def import_checkpoint(path: str | Path, arch: str | None = None, **net_options: Any) -> ForeignCheckpoint:
    """Read a checkpoint of another implementation.

    Parameters
    ----------
    path
        `.pth`, `.pt` or `.safetensors`: a state dict, or a dictionary that holds one under `state_dict` or `model`.
    arch
        Our name of the architecture, to insist on it.
    **net_options
        What the file cannot tell, such as the number of heads; must agree with what it does tell.

    Raises
    ------
    BadWeights
        If the file is unsafe, damaged or of no known form.
    """
    from napari_medt.nets import create_net, list_nets
    from napari_medt.zoo.weights import read_state_dict

    name = Path(path).name
    state = read_state_dict(Path(path))
    for inner in ("state_dict", "model", "model_state_dict"):
        if inner in state and isinstance(state[inner], Mapping):
            state = state[inner]
    state = {str(key).removeprefix("module."): value for key, value in state.items()}
    shapes = {key: tuple(value.shape) for key, value in state.items() if hasattr(value, "shape")}
    form, architecture, options = recognise(shapes, arch)
    for option, value in net_options.items():
        if option not in form.guessed and options.get(option, value) != value:
            raise BadWeights(
                f"{name} was made with {option}={options[option]}, not {value}", remedy=f"leave {option} out"
            )
    options |= net_options
    try:
        mapped = form.map_state({key: value for key, value in state.items() if key in shapes}, options)
    except KeyError as error:
        raise BadWeights(
            f"{name} looks like {form.name}, but its key {error.args[0]!r} does not belong to it", remedy=REMEDY
        ) from None
    expected = create_net(architecture, **options).state_dict()
    for key, value in expected.items():
        if key not in mapped or mapped[key].shape != value.shape:
            found = f"has shape {tuple(mapped[key].shape)}" if key in mapped else "is missing"
            raise BadWeights(
                f"{name} looks like {architecture}, but {key!r} {found} where {tuple(value.shape)} is needed",
                remedy=REMEDY,
            )
    info = next(info for info in list_nets() if info.name == architecture)
    dims = options.get("spatial_dims", info.spatial_dims[0])
    in_channels = options["in_channels"]
    channels: Literal["grey", "rgb", "bgr"] | tuple[str, ...] = tuple(f"channel {i + 1}" for i in range(in_channels))
    notes = form.notes
    if in_channels == 1:
        channels = "grey"
    elif in_channels == 3 and dims == 2:
        channels = form.colour
    return ForeignCheckpoint(
        architecture,
        options,
        {key: mapped[key].float() if mapped[key].is_floating_point() else mapped[key] for key in expected},
        dims,
        channels,
        notes,
    )
