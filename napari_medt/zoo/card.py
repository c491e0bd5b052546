"""What a trained model is, in one frozen record beside its weights."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from napari_medt.core import BadModel

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Interval = tuple[Finite, Finite]

NOTICE = "Research use; not a medical device."

_PAIRS = {letter: pair for pair in ("SI", "AP", "LR") for letter in pair}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Intensity(_Record):
    """How image values are brought to the scale the network was trained on.

    Attributes
    ----------
    kind
        `"percentile"`: the `low` and `high` percentile of the image become 0 and 1, the rest is clipped. `"clip"`: the values
        `low` and `high`, in their own unit (Hounsfield units for CT), become 0 and 1, the rest is clipped. `"zscore"`: the mean
        and the standard deviation of what is not 0 become 0 and 1, and what is 0 stays 0. `"unit"`: integers are divided by the
        largest value of their type. `"none"`: as they are.
    per_channel
        Whether percentiles or mean and deviation are those of each channel, instead of all channels together.
    """

    kind: Literal["percentile", "clip", "zscore", "unit", "none"]
    low: float = Field(default=0.5, allow_inf_nan=False)
    high: float = Field(default=99.8, allow_inf_nan=False)
    per_channel: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Intensity:
        if self.kind == "clip":
            if not {"low", "high"} <= self.model_fields_set:
                raise ValueError("'clip' needs the values 'low' and 'high'")
            if not self.low < self.high:
                raise ValueError(f"the low value {self.low:g} is not below the high one, {self.high:g}")
        elif self.kind == "percentile":
            for value in (self.low, self.high):
                if not 0 <= value <= 100:
                    raise ValueError(f"a percentile lies between 0 and 100, not at {value:g}")
            if not self.low < self.high:
                raise ValueError(f"the low percentile {self.low:g} is not below the high one, {self.high:g}")
        return self


class Score(_Record):
    """Held-out scores of one group of images, of one structure or the mean over all.

    Dice and IoU are means over images, F1 is pooled over all samples. HD95, the 95th percentile of distances between surfaces,
    is a mean over the images in which both masks have the structure, in mm; `missed` counts the pairs of image and structure
    where only one of the masks has it. Intervals are bootstraps of 95 per cent over the images, none of a single image.
    """

    dataset: str
    group: str
    structure: str = ""
    images: int = Field(ge=1)
    dice: float = Field(ge=0, le=1)
    iou: float = Field(ge=0, le=1)
    f1: float = Field(ge=0, le=1)
    hd95: Length | Literal[0] | None = None
    missed: int = Field(default=0, ge=0)
    dice_interval: Interval | None = None
    iou_interval: Interval | None = None
    hd95_interval: Interval | None = None


class ModelCard(_Record):
    """Everything about a trained model but its weights.

    Attributes
    ----------
    name, version
        Together the key, `name@version`; version 1 is the one a recipe or an import made.
    architecture, net_options
        For `create_net`.
    classes
        Names by label value, background first. A network with a single output, `num_classes=1` in its options, gives the logit
        of the one class against the background: its card names two.
    overlapping
        Whether a place can be of several classes: the network then gives one logit for each class beside the background, to
        be taken through a sigmoid on its own, and none for the background. Where one label has to be shown, that of the last
        of them in the order of the classes is.
    one_piece
        Names of the classes of which a mask keeps the largest connected part only.
    channels
        `"grey"`, `"rgb"`, `"bgr"`, or the names of the channels.
    window
        Size of the windows the model was trained on, spatial axes, in px.
    spacing
        Distance between samples that the network wants along each spatial axis, in mm; `None` as it comes.
    orientation
        Where the axes of a scan are to run, as `Geometry.orientation` says it, `"SPL"` for axial slices; empty as it comes.
        For a 2D model, the first letter is that of the axis that counts slices.
    crop
        `"foreground"`: only the box around the body is segmented, `"none"`: the whole image.
    modality
        For people; where it begins with a name that `suitability.check` knows, such as CT or MR, other images are told.
    value_range
        Between which values, in their own unit, those of the training images lay.
    field_of_view_mm
        How far a training image usually reached along each spatial axis.
    training_spacing
        How far apart the samples of a training image usually were, before they were brought to `spacing`, in mm.
    temperature
        By which logits are divided, so that probabilities are as often right as they say.
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
    overlapping: bool = False
    one_piece: tuple[str, ...] = ()
    channels: Literal["grey", "rgb", "bgr"] | Annotated[tuple[str, ...], Field(min_length=1)]
    spatial_dims: Literal[2, 3] = 2
    window: tuple[int, ...]
    spacing: Annotated[tuple[Length, ...], Field(min_length=2, max_length=3)] | None = None
    orientation: str = ""
    intensity: Intensity
    crop: Literal["none", "foreground"] = "none"
    modality: str = ""
    value_range: tuple[Finite, Finite] | None = None
    field_of_view_mm: Annotated[tuple[Length, ...], Field(min_length=2, max_length=3)] | None = None
    training_spacing: Annotated[tuple[Length, ...], Field(min_length=2, max_length=3)] | None = None
    temperature: Length = 1.0
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
    def overall(self) -> Score | None:
        """The score of all held-out images and structures together, if it was measured."""
        return next((s for s in self.scores if s.group in ("all", "overall", "") and not s.structure), None)

    @property
    def in_channels(self) -> int:
        """Number of channels the network takes."""
        if isinstance(self.channels, tuple):
            return len(self.channels)
        return 1 if self.channels == "grey" else 3

    @property
    def chances(self) -> int:
        """Number of probabilities of a place: one a class, without the background where classes overlap."""
        return len(self.classes) - self.overlapping

    @property
    def outputs(self) -> int:
        """Number of logits the network gives: one a probability, or a single one for two classes."""
        single = len(self.classes) == 2 and self.net_options.get("num_classes") == 1
        return 1 if single else self.chances

    @model_validator(mode="after")
    def _fits_its_network(self) -> ModelCard:
        wanted = {"num_classes": self.outputs, "in_channels": self.in_channels}
        for option, value in wanted.items():
            if self.net_options.get(option, value) != value:
                raise ValueError(
                    f"{option} of the network is {self.net_options[option]}, but the card describes {value}"
                )
        if unknown := set(self.one_piece) - set(self.classes[1:]):
            raise ValueError(f"one_piece names {sorted(unknown)[0]!r}, which is no class beside the background")
        if self.one_piece and self.overlapping:
            raise ValueError("one_piece is for structures that do not overlap")
        if len(self.window) != self.spatial_dims or min(self.window) < 1:
            raise ValueError(f"the window {self.window} does not have {self.spatial_dims} positive sizes")
        return self

    @model_validator(mode="after")
    def _has_a_place(self) -> ModelCard:
        for entry in ("spacing", "field_of_view_mm", "training_spacing"):
            lengths = getattr(self, entry)
            if lengths is not None and len(lengths) != self.spatial_dims:
                raise ValueError(f"{entry} has {len(lengths)} lengths, but the network has {self.spatial_dims} axes")
        if self.orientation and sorted(map(_PAIRS.get, self.orientation), key=str) != ["AP", "LR", "SI"]:
            raise ValueError(f"the orientation {self.orientation!r} is not one letter each of S or I, P or A, L or R")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError("the value_range {:g} to {:g} does not ascend".format(*self.value_range))
        return self


def parse_card(text: str | bytes, *, where: str) -> ModelCard:
    """Read a card from JSON.

    Parameters
    ----------
    text
        Content of a `card.json`.
    where
        The file, for messages.

    Raises
    ------
    BadModel
        With the value that does not fit, its rule, the file, and the way out.
    """
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        problems = {_place(problem["loc"]): problem for problem in reversed(error.errors(include_url=False))}
        if "schema_version" in problems:
            known = problems["schema_version"]["input"]
            raise BadModel(
                f"The model card {where} is of a format this version does not know ({known!r})",
                remedy="update napari-medt",
            ) from error
        place, first = list(problems.items())[-1]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise BadModel(
            f"The model card {where} cannot be used: {_sentence(place, first)}{more}",
            remedy="correct the entry, or restore the card that came with the model",
        ) from error


_RULES = {
    "name": "it must be small letters, digits, '.', '_' and '-', 64 at most",
    "classes": "it must name the background and at least one class",
    "channels": "it must be 'grey', 'rgb', 'bgr' or a list of names",
    "sha256": "it must be 64 hexadecimal digits",
}


def _place(loc: tuple[int | str, ...]) -> str:
    """Where in the card, without pydantic's own names for the branches of a union."""
    return ".".join(str(part) for part in loc if isinstance(part, int) or part.isidentifier())


def _sentence(place: str, problem: Any) -> str:
    """One problem found by pydantic as the value and its rule."""
    message = problem["msg"].removeprefix("Value error, ")
    value = repr(problem["input"])
    if len(value) > 60:
        value = value[:57] + "..."
    match problem["type"]:
        case "json_invalid":
            return f"it is not JSON ({message.removeprefix('Invalid JSON: ')})"
        case "missing":
            return f"its entry {place!r} is missing"
        case "extra_forbidden":
            return f"it has an entry {place!r}, which no card has"
        case "value_error":
            return f"in {place!r}, {message}" if place else str(message)
    if not place:
        return "it does not hold the entries of a card"
    _, should, rest = message.partition(" should ")
    rule = _RULES.get(place) or (f"it should {rest}" if should else message[:1].lower() + message[1:])
    return f"its entry {place!r} is {value}, but {rule}"


def slug(text: str) -> str:
    """A name as cards want it, made from any text."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or "model"
