"""Bundle what finished runs made: `python recipes/bundle.py RUN... --data DATA`, or `make bundle RUNS="runs/unet-nuclei"`.

A run must follow a recipe of this folder to the letter. Its weights and its self-test are copied as they are; its card is
made anew from the recipe, the table of the held-out images that the run wrote, and the images it learnt from. Nothing is
copied of a model that is too large, whose card does not say all it must, or that does not give its test result.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import pandas as pd
import torch

from napari_medt.core import BadTrainingData, MedtError
from napari_medt.training.bundle import measure, scores_of
from napari_medt.training.card_entries import learnt_from, name_of
from napari_medt.training.data import find_data
from napari_medt.training.evaluation import HELD_OUT
from napari_medt.training.loop import LAST, planned
from napari_medt.training.recipe import read_recipe
from napari_medt.zoo import load_model
from napari_medt.zoo.card import ModelCard
from napari_medt.zoo.carrying import parts_of
from napari_medt.zoo.check import check_model, shortcomings
from napari_medt.zoo.shelf import CARD, WEIGHTS, bundled_folder
from napari_medt.zoo.store import card_json
from napari_medt.zoo.weights import write_folder

HERE = Path(__file__).parent
MOST = 70_000_000  # bytes of all bundled models together


def bundle(run: Path, *, data: Path | None, into: Path, recipes: Path = HERE) -> ModelCard:
    """Copy the model of one run to `into`, in place of an older one of its name.

    Raises
    ------
    MedtError
        If the run is not finished, follows no recipe of `recipes`, was measured on other images than are held out, or its model
        may not be bundled.
    """
    old, parts = parts_of(run / "model")
    path = recipes / f"{old.name}.toml"
    written = read_recipe(path)
    another = BadTrainingData(f"{run} does not follow {path}", remedy="train it again by that recipe")
    try:
        recipe = planned(run, written)
    except BadTrainingData as error:
        raise another from error
    if recipe.stages != written.stages:  # shortened, or the recipe was changed since: its figures would not come back
        raise another
    images = find_data(recipe, data, beside=recipes)
    text = dict.fromkeys(("name", "group", "class"), str)
    table = pd.read_csv(run / HELD_OUT, dtype=text, keep_default_na=False)
    if set(table["name"]) != {case.name for case in images.on("test")}:
        raise BadTrainingData(f"{run} was measured on other images than the split holds out", remedy="train it again")
    if recipe.spacing is not None and "hd95" not in table:
        table = measure(load_model(run / "model", device="cpu"), recipe, images)
    steps = torch.load(run / LAST, map_location="cpu", weights_only=True)["step"]
    measured = {
        "recipe": name_of(path, written, steps=steps),
        "scores": scores_of(table, recipe),
        "one_piece": old.one_piece,
        "sha256": old.sha256,
        "created": old.created,
    }
    card = recipe.to_card().model_copy(update=learnt_from(images, recipe) | measured)
    result = check_model(str(run / "model"))
    lacks = [*filter(None, [result.problem]), *shortcomings(card, len(parts[WEIGHTS]))]
    others = sum(file.stat().st_size for file in into.glob("*/*") if file.parent.name != card.name)
    if others + sum(map(len, parts.values())) > MOST:
        lacks.append(f"all bundled models together would take more than {MOST / 1e6:g} MB")
    if lacks:
        raise MedtError(f"The model of {run} cannot be bundled: {'; '.join(lacks)}")
    shutil.rmtree(into / card.name, ignore_errors=True)
    write_folder(into / card.name, parts | {CARD: card_json(card)})
    return card


def main() -> int:
    """Bundle the runs that are given; the exit code says whether one could not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, help="where the images lie; NAPARI_MEDT_DATA by default")
    parser.add_argument("--into", type=Path, default=bundled_folder(), help="where the bundled models lie")
    wishes = parser.parse_args()
    failed = 0
    for run in wishes.runs:
        try:
            card = bundle(run, data=wishes.data, into=wishes.into)
        except (MedtError, OSError) as error:
            sys.stderr.write(f"{error}\n")
            failed = 1
            continue
        overall = card.scores[-1]
        sys.stdout.write(f"{card.key}: Dice {overall.dice:.3f} on {overall.images} held-out images, {card.recipe}\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
