"""A study: architectures trained alike and measured alike, in one file.

Its arms say which network, and little more. Images, split, windows, seeds and the length of the training are the study's, so
no arm can have better ones than another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from napari_medt.training.recipe import Part, Recipe, parse, parse_recipe, read_recipe, read_toml

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
MOST_STEPS = 1_000_000  # of a run whose length minutes decide


class Arm(Part):
    """One of the networks that are compared."""

    name: Name
    title: str = ""
    architecture: str
    net_options: dict[str, Any] = Field(default_factory=dict, description="beside those of the study")
    optimisation: dict[str, Any] = Field(default_factory=dict, description="what differs from the base recipe")


class Study(Part):
    """What is compared, on which images, for how long."""

    name: Name
    title: str
    question: str = Field(default="", description="in a sentence or two, for people")
    recipe: Recipe = Field(description="what all arms share; its network, seed and length are not used")
    folder: Path = Field(description="of the recipe, where its split lies")
    net_options: dict[str, Any] = Field(default_factory=dict, description="of all networks")
    seeds: tuple[int, ...] = Field(min_length=1)
    steps: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0, description="of a training, looks at validation images included")
    arms: tuple[Arm, ...] = Field(min_length=2, description="the first is what the others are compared with")
    published: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="scores in per cent by arm, as papers give them, under the name of the data"
    )

    @model_validator(mode="after")
    def _is_fair(self) -> Study:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("an arm or a seed stands there twice")
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("the budget of every arm is either steps or minutes: give one of them")
        for arm in self.arms:
            if "patience" in arm.optimisation:
                raise ValueError(f"patience would end {arm.name} before the others; all arms are trained to the end")
        if not self.recipe.data.split:
            raise ValueError("the recipe has no split file, which all arms must share")
        if unknown := {arm for scores in self.published.values() for arm in scores} - set(names):
            raise ValueError(f"published names {sorted(unknown)[0]!r}, which is no arm")
        return self

    @property
    def budget(self) -> str:
        """In words."""
        return f"{self.steps} steps" if self.steps else f"about {self.minutes:g} minutes"

    def recipe_of(self, arm: Arm, seed: int) -> Recipe:
        """What is trained for one arm and seed; of `MOST_STEPS` where minutes decide.

        Raises
        ------
        BadTrainingData
            If a change that the arm makes does not fit.
        """
        optimisation = self.recipe.optimisation.model_dump() | {"patience": 0} | arm.optimisation
        changes = {
            "name": f"{self.name}-{arm.name}",
            "title": f"{self.recipe.title}: {arm.title or arm.name}",
            "architecture": arm.architecture,
            "net_options": self.net_options | arm.net_options,
            "optimisation": optimisation,
            "seed": seed,
        }
        recipe = parse_recipe(self.recipe.model_dump() | changes, where=f"arm {arm.name} of the study {self.name}")
        return recipe.scaled_to(self.steps or MOST_STEPS)


def read_study(path: Path) -> Study:
    """Read a study in TOML; `recipe` names the file of its recipe, from the study's folder.

    Raises
    ------
    BadTrainingData
        If a file is missing, is not TOML, or a value does not fit; the sentence names the value.
    """
    content = read_toml(path, what="study")
    base = path.parent / str(content.get("recipe", ""))
    content |= {"name": path.stem, "recipe": read_recipe(base), "folder": base.parent}
    study = parse(Study, content, where=f"study {path.name}")
    for arm in study.arms:
        study.recipe_of(arm, study.seeds[0])
    return study
