"""What a trained model is, in one frozen record beside its weights."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from napari_medt.core import BadModel

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Intensity(_Record):
    """How image values are brought to the scale the network was trained on.

    Attributes
    ----------
    kind
        `"percentile"`: `low` and `high` percentile of the image, all channels together, become 0 and 1, the rest is clipped.
        `"unit"`: integers are divided by the largest value of their type. `"none"`: as they are.
    """

    kind: Literal["percentile", "unit", "none"]
    low: float = Field(default=0.5, ge=0, le=100)
    high: float = Field(default=99.8, ge=0, le=100)


class Score(_Record):
    """Held-out scores of one group of images: Dice and IoU are means over images, F1 is pooled over all pixels."""

    dataset: str
    group: str
    images: int = Field(ge=1)
    dice: float = Field(ge=0, le=1)
    iou: float = Field(ge=0, le=1)
    f1: float = Field(ge=0, le=1)


class ModelCard(_Record):
    """Everything about a trained model but its weights.

    Attributes
    ----------
    name, version
        Together the key, `name@version`; version 1 is the one a recipe or an import made.
    architecture, net_options
        For `create_net`.
    classes
        Names by label value, background first.
    channels
        `"grey"`, `"rgb"`, `"bgr"`, or the names of the channels.
    window
        Size of the windows the model was trained on, spatial axes, in px.
    sha256
        Digest of the weight file.
    base
        Key and digest of the model this one was fine-tuned from; empty if none.
    """

    schema_version: Literal[1] = 1
    name: Slug
    version: int = Field(default=1, ge=1)
    title: str = Field(min_length=1)
    description: str = ""
    architecture: str
    net_options: dict[str, Any]
    classes: tuple[str, ...] = Field(min_length=2)
    channels: Literal["grey", "rgb", "bgr"] | tuple[str, ...]
    spatial_dims: Literal[2, 3] = 2
    window: tuple[int, ...]
    intensity: Intensity
    modality: str = ""
    training_data: str = ""
    recipe: str = ""
    attribution: str = ""
    licence: str = ""
    citation: str = ""
    intended_use: str = ""
    limits: str = ""
    scores: tuple[Score, ...] = ()
    sha256: Digest | Literal[""] = ""
    base: str = ""
    created: str = ""
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def in_channels(self) -> int:
        """Number of channels the network takes."""
        if isinstance(self.channels, tuple):
            return len(self.channels)
        return 1 if self.channels == "grey" else 3

    @model_validator(mode="after")
    def _fits_its_network(self) -> ModelCard:
        wanted = {"num_classes": len(self.classes), "in_channels": self.in_channels}
        for option, value in wanted.items():
            if self.net_options.get(option, value) != value:
                raise ValueError(
                    f"{option} of the network is {self.net_options[option]}, but the card describes {value}"
                )
        if len(self.window) != self.spatial_dims or min(self.window) < 1:
            raise ValueError(f"the window {self.window} does not have {self.spatial_dims} positive sizes")
        return self


def parse_card(text: str | bytes, *, where: str) -> ModelCard:
    """Read a card from JSON.

    Raises
    ------
    BadModel
        With the value that does not fit, its rule, and the file.
    """
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if place == "schema_version":
            raise BadModel(
                f"The model card {where} is of a format this version does not know ({first['input']!r})",
                remedy="update napari-medt",
            ) from error
        message = first["msg"].removeprefix("Value error, ")
        detail = f"{place}: {message}" if place else message
        raise BadModel(
            f"The model card {where} cannot be used ({detail})", remedy="restore the original card.json"
        ) from error


def slug(text: str) -> str:
    """A name as cards want it, made from any text."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or "model"
