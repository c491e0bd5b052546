"""From a folder of images to a recipe that can be followed, changed, and says what was decided."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from imageio.v3 import imwrite

from napari_medt.core import BadTrainingData, StorageError
from napari_medt.training import train
from napari_medt.training.auto import plan_recipe
from napari_medt.training.recipe import read_recipe
from napari_medt.zoo import load_model


@pytest.fixture
def folder(tmp_path, make_discs):
    """Ten pictures of discs and their masks, with what a computer leaves behind."""
    for part in ("images", "masks"):
        (tmp_path / "discs" / part).mkdir(parents=True)
        (tmp_path / "discs" / part / "Thumbs.db").write_bytes(b"x")
    for number in range(10):
        picture, ids = make_discs(number, size=(40 + number, 64))
        imwrite(tmp_path / "discs" / "images" / f"{number}.png", picture)
        imwrite(tmp_path / "discs" / "masks" / f"{number}.png", (ids > 0).astype(np.uint8) * 255)
    return tmp_path / "discs"


def test_a_folder_becomes_a_recipe_and_the_recipe_a_model(folder, tmp_path):
    path, problems = plan_recipe(folder, "unet", out=tmp_path / "run", rule="objects")
    assert not [problem for problem in problems if problem.severity == "error"]
    recipe = read_recipe(path)
    assert recipe.architecture == "unet"
    assert len(recipe.classes) == 2
    assert recipe.augmentation.preset == "microscopy"
    low, high = recipe.to_card().value_range
    assert 0 <= low < 60 < 170 < high <= 255
    with (tmp_path / "run" / "split.csv").open(newline="") as file:
        sides = [row["split"] for row in csv.DictReader(file)]
    assert [sides.count(side) for side in ("train", "validation", "test")] == [7, 1, 2]
    text = path.read_text()
    assert text.startswith("# Made from what discs is like")
    short = text.replace("steps = 3000", "steps = 2").replace(f"batch = {recipe.stages[0].batch}", "batch = 2")
    path.write_text(short.replace("norm_batches = 30", "norm_batches = 2"))
    model = load_model(train(path, out=tmp_path / "run", device="cpu"), device="cpu")
    assert model.card.name == "unet-discs"
    assert model.card.scores[-1].images == 2


def test_what_cannot_be_learnt_from_is_listed_with_all_its_errors(folder, tmp_path):
    (folder / "images" / "3.png").write_bytes(b"no picture")
    imwrite(folder / "masks" / "4.png", np.zeros((5, 7), np.uint8))
    with pytest.raises(BadTrainingData) as caught:
        plan_recipe(folder, "unet", out=tmp_path / "run", rule="objects")
    sentence = str(caught.value)
    assert "3:" in sentence
    assert "4:" in sentence
    assert "2 errors" in sentence
    assert not (tmp_path / "run" / "recipe.toml").exists()


def test_a_plan_is_not_written_over(folder, tmp_path):
    plan_recipe(folder, "unet", out=tmp_path / "run", rule="objects")
    with pytest.raises(BadTrainingData, match=r"holds a plan already; go on with it by --recipe .*recipe\.toml --out"):
        plan_recipe(folder, "unet", out=tmp_path / "run", rule="objects")


def test_a_run_folder_that_cannot_be_made(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="run could not be made"):
        plan_recipe(folder, "unet", out=tmp_path / "file" / "run", rule="objects")


def test_black_and_white_masks_are_told_not_guessed(folder, tmp_path):
    with pytest.raises(BadTrainingData, match="black and white.*give --masks objects"):
        plan_recipe(folder, "unet", out=tmp_path / "run")


def test_an_image_that_is_there_twice_does_not_stop_the_plan(folder, tmp_path):
    for number in range(1, 6):
        for part in ("images", "masks"):
            (folder / part / f"{number}.png").write_bytes((folder / part / "0.png").read_bytes())
    path, problems = plan_recipe(folder, "unet", out=tmp_path / "run", rule="objects")
    assert {problem.kind for problem in problems} == {"twice"}
    with (path.parent / "split.csv").open(newline="") as file:
        assert len({row["split"] for row in csv.DictReader(file) if row["file"][0] in "012345"}) == 1


def test_a_missing_mask_is_told_once(folder, tmp_path):
    (folder / "masks" / "3.png").unlink()
    with pytest.raises(BadTrainingData, match="1 error, 0 warnings"):
        plan_recipe(folder, "unet", out=tmp_path / "run", rule="objects")
