"""Checkpoints of other people's implementations, mapped to our networks by their keys and shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_medt.core import BadModel, BadWeights
from napari_medt.zoo.recognition import MAPPING_FAILS, REMEDY, first_difference, odd_key, promise, recognise

if TYPE_CHECKING:
    from torch import Tensor

COUNTER = "num_batches_tracked"  # of batch norm, which changes no result


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


def _nearest_state(content: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The weights in a checkpoint, under the keys by which they are nearest to a known form."""
    found = [
        {key: value for key, value in state.items() if hasattr(value, "shape")}
        for state in peeled(weights_within(content))
    ]
    if not found:
        held = ", ".join(map(repr, islice(content, 5))) or "nothing"
        raise BadWeights(f"{name} holds no weights of a network: it has {held}", remedy=REMEDY)
    return max(found, key=lambda state: promise({key: tuple(value.shape) for key, value in state.items()}))


def weights_within(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The state dict of a checkpoint, which may lie in it under any name beside other things; empty if there is none.

    Of several the largest is taken, the first of equal ones.
    """
    if not all(isinstance(key, str) for key in content):
        return {}  # the state of an optimiser counts its tensors
    if any(hasattr(value, "shape") for value in content.values()):
        counter = "n_averaged"  # of torch's averaged networks
        return {key: value for key, value in content.items() if key != counter}
    inner = [weights_within(value) for value in content.values() if isinstance(value, Mapping)]
    return max(inner, key=len, default={})


def peeled(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A state dict, then without the first word of its keys if most share it, and so on: wrappers of networks add such words."""
    while state:
        yield state
        word, count = Counter(key.partition(".")[0] for key in state).most_common(1)[0]
        shorter = {key.removeprefix(f"{word}."): value for key, value in state.items()}
        if 2 * count <= len(state) or shorter.keys() == state.keys():
            return
        state = shorter


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def import_checkpoint(path: str | Path, arch: str | None = None, **net_options: Any) -> ForeignCheckpoint:
    """Read a checkpoint of another implementation.

    Parameters
    ----------
    path
        `.pth`, `.pt` or `.safetensors`: a state dict, or a dictionary that holds one beside other things. Words that wrappers
        put before every key (`module.`, `_orig_mod.`, `net.`) do not matter, nor does the precision.
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
    state = _nearest_state(read_state_dict(Path(path)), name)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    form, architecture, options = recognise(shapes, arch)
    for option, value in net_options.items():
        if option not in form.guessed and _plain(options.get(option, value)) != _plain(value):
            raise BadWeights(
                f"{name} was made with {option}={options[option]}, not {value}", remedy=f"leave {option} out"
            )
    options |= net_options
    looks = f"{name} looks like {form.name}, but"
    try:
        mapped = form.map_state(state, options)
    except KeyError as error:
        raise BadWeights(f"{looks} its key {error.args[0]!r} does not belong to it", remedy=REMEDY) from None
    except MAPPING_FAILS as error:
        create_net(architecture, **options)  # raises where it is an option given that does not fit
        key = odd_key(form, state, options)
        raise BadWeights(f"{looks} its key {key!r} has the unknown shape {shapes[key]}", remedy=REMEDY) from error
    try:
        expected = create_net(architecture, **options).state_dict()
    except BadModel as error:
        raise error if net_options else BadWeights(f"{looks} {error.what}", remedy=REMEDY) from error
    except (TypeError, ArithmeticError, RuntimeError) as error:
        raise BadWeights(f"{looks} no network has the sizes found in it: {options}", remedy=REMEDY) from error
    mapped = {key: value for key, value in expected.items() if key.endswith(COUNTER)} | mapped  # old torch had none
    if problem := first_difference(form, shapes, options, mapped, expected):
        raise BadWeights(f"{looks} its key {problem}", remedy=REMEDY)
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
