"""A recipe: everything that decides how a bundled model comes about, in one file."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_medt.core import BadTrainingData
from napari_medt.nets import list_nets
from napari_medt.training.brats import REGIONS, SCHEMES, SchemeName
from napari_medt.training.datasets import Layout, MaskRule
from napari_medt.zoo.card import NOTICE, Intensity, ModelCard

Checked = TypeVar("Checked", bound=BaseModel)


class Part(BaseModel):
    """Of a file that people write: unknown entries are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Stage(Part):
    """A part of the training with one window and one batch size."""

    window: int | tuple[int, ...] = Field(
        description="sizes of the windows, in samples of the model's grid; one for a cube"
    )
    batch: int = Field(ge=1)
    steps: int = Field(ge=1)

    def size(self, dims: int) -> tuple[int, ...]:
        """Of the windows, along `dims` axes."""
        return (self.window,) * dims if isinstance(self.window, int) else self.window


class Data(Part):
    """Where the images are and which part of their masks is learnt; the first entries are those of `find_cases`."""

    folder: str = Field(description="of the images and masks, below the data root")
    layout: Layout = "auto"
    images: str | None = None
    labels: str | None = None
    rule: MaskRule | None = None
    split: str = Field(default="", description="CSV beside the recipe: file, group, field, split; or as the data say")
    scheme: SchemeName | None = Field(
        default=None, description="of the labels of brain tumours, instead of values: see `brats.SCHEMES`"
    )
    values: dict[str, Literal["any"] | tuple[int, ...]] = Field(
        default_factory=dict,
        description="values in the masks that make up a class, 'any' for all but 0; by default a class's place in the list",
    )
    weights: dict[str, float] = Field(
        default_factory=dict, description="share of the windows by group; by default equal"
    )
    foreground: float = Field(default=0.5, ge=0, le=1, description="share of the windows drawn around a structure")
    source: str = Field(default="the images", description="where a user gets the images")


class Augmentation(Part):
    """How windows are varied, so that the network meets more than there is."""

    preset: Literal["none", "microscopy", "fundus", "ct", "mr"] = Field(
        description="of intensities, see `augmentation`"
    )
    scale: tuple[float, float] = Field(default=(1.0, 1.0), description="range of magnification")
    rotate: float = Field(default=0.0, ge=0, le=180, description="largest turn in degrees, in every plane")
    quarter_turns: bool = Field(
        default=False, description="whether windows are turned by 90 degrees in the last two axes"
    )
    mirror: tuple[int, ...] = Field(default=(), description="axes that are mirrored half of the time")
    own_range: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the windows whose values are scaled by their own percentiles, as if the image showed nothing else",
    )


class Optimisation(Part):
    """How the weights move."""

    method: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "polynomial"] = "cosine"
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(
        ge=0, description="of convolutions and matrices; tables, gates, norms and biases have none"
    )
    warmup: int = Field(ge=0, description="steps of linear increase before the schedule")
    clip: float = Field(gt=0, description="norm the gradient is clipped to")
    average: float = Field(ge=0, lt=1, description="decay of the moving average of the weights")
    norm_batches: int = Field(ge=1, description="batches that the running statistics are taken from at the end")
    background: float = Field(
        default=1.0, gt=0, description="weight of background in the cross-entropy; low where structures are small"
    )
    background_rises: float = Field(
        default=0.0, ge=0, le=1, description="share of the steps in which that weight rises to 1; 0 for not at all"
    )
    gates_held: float = Field(default=0.0, ge=0, lt=1, description="share of the steps before gates of attention move")
    patience: int = Field(default=0, ge=0, description="validations without a gain before the run ends; 0 for never")


class CardTexts(Part):
    """What a card says and no run can measure."""

    modality: str = ""
    training_data: str = ""
    attribution: str = ""
    licence: str = ""
    citation: str = ""
    intended_use: str = ""
    limits: str = ""


def overlap(values: Collection[Literal["any"] | tuple[int, ...]]) -> bool:
    """Whether classes share values of a mask."""
    lists = [set(some) for some in values if some != "any"]
    alone = len(lists) == len(values) or len(values) == 1
    return not alone or sum(map(len, lists)) > len(set().union(*lists))


class Recipe(Part):
    """What is trained, on what, how, and what its card says."""

    name: str
    title: str
    description: str = ""
    architecture: str
    net_options: dict[str, Any]
    classes: tuple[str, ...]
    channels: Literal["grey", "rgb"] | tuple[str, ...]
    window: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    orientation: str = ""
    crop: Literal["none", "foreground"] = "none"
    intensity: Intensity
    value_range: tuple[float, float] | None = None
    field_of_view_mm: tuple[float, ...] | None = None
    seed: int
    data: Data
    augmentation: Augmentation
    stages: tuple[Stage, ...] = Field(min_length=1)
    optimisation: Optimisation
    card: CardTexts = CardTexts()

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    @property
    def values(self) -> tuple[Literal["any"] | tuple[int, ...], ...]:
        """Which values of a mask make up each class beside the background."""
        given = SCHEMES[self.data.scheme].values if self.data.scheme else self.data.values
        return tuple(given.get(name, (value,)) for value, name in enumerate(self.classes[1:], start=1))

    @property
    def overlapping(self) -> bool:
        """Whether a place can be of several classes."""
        return overlap(self.values)

    def to_card(self) -> ModelCard:
        """The card of a model made by this recipe, without what only a run can tell."""
        shared = ("name", "title", "description", "architecture", "net_options", "classes", "channels", "window")
        grid = ("spacing", "orientation", "crop", "intensity", "value_range", "field_of_view_mm")
        given = {entry: getattr(self, entry) for entry in (*shared, *grid)}
        texts = self.card.model_dump()
        paper = next((net.paper for net in list_nets() if net.name == self.architecture), "")
        texts["citation"] = "; ".join(filter(None, (texts["citation"], paper)))
        if NOTICE not in texts["intended_use"]:
            texts["intended_use"] = f"{texts['intended_use']} {NOTICE}".strip()
        dims: Any = len(self.window)
        return ModelCard(spatial_dims=dims, overlapping=self.overlapping, **given, **texts)

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        dims = len(self.window)
        for stage in self.stages:
            if len(stage.size(dims)) != dims:
                raise ValueError(f"a stage has windows of {len(stage.size(dims))} axes, but the model has {dims}")
        if any(not 0 <= axis < dims for axis in self.augmentation.mirror):
            raise ValueError(f"augmentation.mirror names an axis that is none of 0 to {dims - 1}")
        if self.augmentation.own_range and self.intensity.kind != "percentile":
            raise ValueError("augmentation.own_range goes with an intensity of kind 'percentile'")
        if self.data.scheme and (self.data.values or not set(self.classes[1:]) <= set(REGIONS)):
            raise ValueError(f"data.scheme goes without data.values, for the classes {', '.join(REGIONS)}")
        if unknown := set(self.data.values) - set(self.classes[1:]):
            raise ValueError(f"data.values names {sorted(unknown)[0]!r}, which is no class beside the background")
        self.to_card()
        return self

    def scaled_to(self, steps: int) -> Recipe:
        """The same recipe with its stages shortened or lengthened in proportion to `steps` in all."""
        share = steps / self.steps
        stages = tuple(s.model_copy(update={"steps": max(1, round(s.steps * share))}) for s in self.stages)
        return self.model_copy(update={"stages": stages})


def read_recipe(path: Path) -> Recipe:
    """Read a recipe in TOML; what several share may stand in another, which `extends` names.

    Raises
    ------
    BadTrainingData
        If the file is missing, is not TOML, or a value does not fit; the sentence names the value.
    """
    return parse_recipe(_content(path), where=f"recipe {path.name}")


def _content(path: Path, *, depth: int = 0) -> dict[str, Any]:
    """What is in the file, over what is in the file that it `extends`, table by table."""
    content = read_toml(path, what="recipe")
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(base, str) or depth > 3:
        raise BadTrainingData(f"In the recipe {path.name}, extends must name one other recipe, and not in a circle")
    below = _content(path.parent / base, depth=depth + 1)
    tables = {name: below[name] | value for name, value in content.items() if name in below and isinstance(value, dict)}
    return below | content | tables


def read_toml(path: Path, *, what: str) -> dict[str, Any]:
    """What is in a TOML file; in errors it is called `what`.

    Raises
    ------
    BadTrainingData
        If the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadTrainingData(f"The {what} {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadTrainingData(f"The {what} {path.name} is not valid TOML: {error}") from error


def parse_recipe(content: Any, *, where: str) -> Recipe:
    """Check the content of a recipe; `where` it comes from is named in errors.

    Raises
    ------
    BadTrainingData
        If a value does not fit; the sentence names the value.
    """
    return parse(Recipe, content, where=where)


def parse(model: type[Checked], content: Any, *, where: str) -> Checked:
    """The same for any model of pydantic."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        unknown = [each for each in error.errors() if each["type"] == "extra_forbidden"]
        first = [*unknown, *error.errors()][0]  # a key that is mistyped is missing, too
        place = ".".join(map(str, first["loc"]))
        message = "there is no such entry" if unknown else first["msg"].removeprefix("Value error, ")
        problem = f"{place}: {message}" if place else message
        raise BadTrainingData(f"In the {where}, {problem}", remedy="correct that value") from error
