"""A recipe: everything that decides how a bundled model comes about, in one file."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_medt.core import BadTrainingData
from napari_medt.zoo.card import Intensity


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stage(_Part):
    """A part of the training with one window and one batch size."""

    window: int = Field(ge=16, description="edge of the square windows, px")
    batch: int = Field(ge=1)
    steps: int = Field(ge=1)


class Data(_Part):
    """Where the images are and how they are drawn."""

    folder: str = Field(description="folder with images/ and labels/, below the data root")
    split: str = Field(description="CSV beside the recipe: file, group, field, split")
    weights: dict[str, float] = Field(description="share of the windows drawn from each group")
    scale: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="range of magnification by group; 0.5 to 2 by default"
    )
    source: str = Field(description="where a user gets the images")


class Optimisation(_Part):
    """How the weights move."""

    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0, description="of convolutions; tables, gates and norms have none")
    warmup: int = Field(ge=0, description="steps of linear increase before the cosine")
    clip: float = Field(gt=0, description="norm the gradient is clipped to")
    average: float = Field(ge=0, lt=1, description="decay of the moving average of the weights")
    norm_batches: int = Field(ge=1, description="batches that the running statistics are taken from at the end")


class CardTexts(_Part):
    """What a card says and no run can measure."""

    modality: str
    training_data: str
    attribution: str
    licence: str
    citation: str
    intended_use: str
    limits: str


class Recipe(_Part):
    """What is trained, on what, how, and what its card says."""

    name: str
    title: str
    description: str
    architecture: str
    net_options: dict[str, Any]
    classes: tuple[str, ...]
    channels: Literal["grey", "rgb"]
    window: tuple[int, int]
    intensity: Intensity
    seed: int
    data: Data
    stages: tuple[Stage, ...] = Field(min_length=1)
    optimisation: Optimisation
    card: CardTexts

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def scaled_to(self, steps: int) -> Recipe:
        """The same recipe with its stages shortened or lengthened in proportion to `steps` in all."""
        share = steps / self.steps
        stages = tuple(s.model_copy(update={"steps": max(1, round(s.steps * share))}) for s in self.stages)
        return self.model_copy(update={"stages": stages})


def read_recipe(path: Path) -> Recipe:
    """Read a recipe in TOML.

    Raises
    ------
    BadTrainingData
        If the file is missing, is not TOML, or a value does not fit; the sentence names the value.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadTrainingData(f"The recipe {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadTrainingData(f"The recipe {path.name} is not valid TOML: {error}") from error
    return parse_recipe(content, where=f"recipe {path.name}")


def parse_recipe(content: Any, *, where: str) -> Recipe:
    """Check the content of a recipe; `where` it comes from is named in errors.

    Raises
    ------
    BadTrainingData
        If a value does not fit; the sentence names the value.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        problem = f"{place}: {message}" if place else message
        raise BadTrainingData(f"In the {where}, {problem}", remedy="correct that value") from error


class SplitRow(_Part):
    """One image of the split."""

    file: str
    group: str
    field: str = Field(description="crops of one field of view share it; a field is never split")
    split: Literal["train", "validation", "test"]


def read_split(path: Path) -> list[SplitRow]:
    """Rows of the split file; checks that no field of view is on two sides.

    Raises
    ------
    BadTrainingData
        If the file is missing or damaged, or a field of view is in two splits.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [SplitRow.model_validate(row) for row in csv.DictReader(file)]
    except OSError as error:
        raise BadTrainingData(f"The split {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise BadTrainingData(f"The split {path.name} has a damaged row: {error.errors()[0]['msg']}") from error
    sides: dict[str, str] = {}
    for row in rows:
        if sides.setdefault(row.field, row.split) != row.split:
            raise BadTrainingData(f"In {path.name}, images of the field {row.field} are in two splits")
    return rows
