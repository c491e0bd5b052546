"""The architectures by name: one decorator registers, `create_net` builds, `list_nets` tells."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from numbers import Integral
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import nn

from napari_medt.core import BadModel
from napari_medt.nets.capture import list_attention_sources
from napari_medt.nets.states import AttentionSource

Preset = Literal["small", "standard", "paper"]


@dataclass(frozen=True)
class NetInfo:
    """What can be said about an architecture without building it.

    Attributes
    ----------
    name
        As given to `create_net`.
    title
        For people.
    spatial_dims
        2, 3 or both: what the option `spatial_dims` of networks that have it may be.
    multiple
        At the defaults, the network pads its input to a multiple of this and crops its output, so any size goes in.
    paper
        Where it was published.
    attention
        What its attention maps show, in words.
    defaults
        Options of `create_net` with their default values: the standard preset.
    presets
        Options that differ from the defaults, by preset: `"small"` trains on a desktop's processor, `"paper"` is as published.
    extra
        Extra of the package that must be installed for it, or an empty string.
    exports
        Whether `torch.export` takes it, in evaluation and at one size of image and batch, and gives the same logits.
    """

    name: str
    title: str
    spatial_dims: tuple[int, ...]
    multiple: int
    paper: str
    attention: str
    defaults: dict[str, Any] = field(default_factory=dict)
    presets: dict[Preset, dict[str, Any]] = field(default_factory=dict)
    extra: str = ""
    exports: bool = True

    @cached_property
    def parameters(self) -> int:
        """Number of parameters at the defaults."""
        return sum(p.numel() for p in self._empty.parameters())

    @cached_property
    def sources(self) -> tuple[AttentionSource, ...]:
        """Places where it attends, at the defaults."""
        return list_attention_sources(self._empty)

    @cached_property
    def _empty(self) -> nn.Module:
        with torch.device("meta"):
            return create_net(self.name)


_NETS: dict[str, tuple[NetInfo, Callable[..., nn.Module]]] = {}
Net = TypeVar("Net", bound=Callable[..., nn.Module])


def register(
    name: str,
    *,
    title: str,
    spatial_dims: tuple[int, ...],
    multiple: int,
    paper: str,
    attention: str,
    small: dict[str, Any] | None = None,
    published: dict[str, Any] | None = None,
    extra: str = "",
    exports: bool = True,
    may_be_zero: Collection[str] = (),
) -> Callable[[Net], Net]:
    """Register a network class or a function that builds one; its keyword arguments become the net's options.

    `small` and `published` are the options of the presets `"small"` and `"paper"`; none where the defaults serve. Options that
    are annotated as whole numbers must be 1 or more, those in `may_be_zero` 0 or more.
    """

    def add(build: Net) -> Net:
        if name in _NETS:
            raise ValueError(f"two networks are called {name!r}")
        parameters = inspect.signature(build).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        presets: dict[Preset, dict[str, Any]] = {"small": small or {}, "standard": {}, "paper": published or {}}
        info = NetInfo(name, title, spatial_dims, multiple, paper, attention, defaults, presets, extra, exports)
        hints = get_type_hints(build.__init__ if inspect.isclass(build) else build)

        def checked(**options: Any) -> nn.Module:
            for option, value in options.items():
                _check_count(option, value, hints[option], least=0 if option in may_be_zero else 1)
            return build(**options)

        _NETS[name] = (info, checked)
        return build

    return add


def list_nets() -> tuple[NetInfo, ...]:
    """All registered architectures, in the order of their names."""
    return tuple(_NETS[name][0] for name in sorted(_NETS))


def create_net(name: str, *, preset: Preset = "standard", **options: Any) -> nn.Module:
    """Build a network with fresh weights.

    Parameters
    ----------
    name
        One of `list_nets()`.
    preset
        `"small"`, `"standard"` or `"paper"`; options given go before it.
    **options
        As in `NetInfo.defaults`, for example `img_size`, `in_channels`, `num_classes`.

    Returns
    -------
    torch.nn.Module
        Takes `(n, in_channels, h, w)` or `(n, in_channels, d, h, w)` of any size, gives logits `(n, num_classes, ...)`.

    Raises
    ------
    BadModel
        If the name or an option is unknown, or a value does not fit.
    """
    if name not in _NETS:
        near = get_close_matches(name, _NETS, n=1)
        hint = f"did you mean {near[0]!r}" if near else "choose one of " + ", ".join(sorted(_NETS))
        raise BadModel(f"No architecture is called {name!r}", remedy=hint)
    info, build = _NETS[name]
    unknown = sorted(set(options) - set(info.defaults))
    if unknown:
        raise BadModel(
            f"{name} has no option {', '.join(unknown)}", remedy="its options are " + ", ".join(info.defaults)
        )
    if preset not in get_args(Preset):
        raise BadModel(f"No preset is called {preset!r}", remedy="choose one of " + ", ".join(get_args(Preset)))
    chosen = info.presets.get(preset, {}) | options
    dims = chosen.get("spatial_dims", info.defaults.get("spatial_dims"))
    if "img_size" not in options and len(_as_many(chosen.get("img_size"))) not in (1, dims):
        del chosen["img_size"]  # the preset's has an axis too many or too few
    try:
        return build(**chosen)
    except ValueError as error:
        raise BadModel(f"{name} cannot be built with these options: {error}") from error


def _check_count(option: str, value: object, hint: Any, *, least: int) -> None:
    """Whole numbers of at least `least` where the annotation asks for them: torch builds networks that cannot run from others.

    Raises
    ------
    ValueError
        If one is not.
    """
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    several = any(get_origin(kind) in (Sequence, tuple) and get_args(kind)[0] is int for kind in kinds)
    single = int in kinds
    if not (single or several) or (value is None and NoneType in kinds):
        return
    numbers = _as_many(value)
    counts = len(numbers) > 0 and all(isinstance(n, Integral) and int(n) >= least for n in numbers)
    if not counts or not (several if isinstance(value, Iterable) else single):
        kind = "whole numbers" if single and several else "several whole numbers" if several else "a whole number"
        raise ValueError(f"{option} must be {kind} of at least {least}, not {value!r}")


def _as_many(value: object) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Iterable) else (value,)
