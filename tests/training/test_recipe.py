"""Recipes and splits: what the project's own say, and one sentence for each mistake."""

from __future__ import annotations

import csv
import importlib.util
import re
import shutil
from collections import Counter

import pytest

from napari_medt.core import BadTrainingData
from napari_medt.nets import create_net
from napari_medt.training.recipe import read_recipe, read_split


@pytest.fixture(scope="module")
def nuclei(root):
    return read_recipe(root / "recipes" / "medt-nuclei.toml")


@pytest.fixture(scope="module")
def split(root, nuclei):
    return read_split(root / "recipes" / nuclei.data.split)


class TestOwnRecipe:
    def test_its_network_can_be_built_and_its_card_filled(self, nuclei):
        net = create_net(nuclei.architecture, **nuclei.net_options)
        assert net.num_classes == len(nuclei.classes) == 2
        assert all(nuclei.card.model_dump().values())

    def test_its_groups_are_those_of_the_split(self, nuclei, split):
        assert set(nuclei.data.weights) == {row.group for row in split}

    def test_every_kind_of_image_is_on_every_side(self, split):
        sides = {
            side: Counter(row.group for row in split if row.split == side) for side in ("train", "validation", "test")
        }
        assert len({frozenset(kinds) for kinds in sides.values()}) == 1
        assert {side: kinds.total() for side, kinds in sides.items()} == {"train": 392, "validation": 36, "test": 81}

    def test_held_out_images_are_exactly_those_of_the_index(self, split, data_folder):
        with (data_folder / "nuclei_dsb2018" / "index.csv").open(newline="") as file:
            index = {row["file"]: row for row in csv.DictReader(file)}
        assert {row.file for row in split} == set(index)
        for row in split:
            assert (row.split == "test") == (index[row.file]["split"] == "val")
            assert (row.field, row.group) == (index[row.file]["group_id"], index[row.file]["type"])

    def test_its_script_makes_it_again(self, root, data_folder, tmp_path):
        script = shutil.copy(root / "recipes" / "make_nuclei_split.py", tmp_path)
        spec = importlib.util.spec_from_file_location("make_nuclei_split", script)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main(data_folder / "nuclei_dsb2018" / "index.csv")
        made = (tmp_path / "nuclei-split.csv").read_bytes()
        assert made == (root / "recipes" / "nuclei-split.csv").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("seed = 1", "seed = 'one'", r"In the recipe discs\.toml, seed: .*integer.*; correct that value\."),
        ("batch = 4", "batch = 0", r"stages\.0\.batch: .*greater than or equal to 1"),
        ("clip = 5.0", "clip = 5.0\nclap = 1", r"optimisation\.clap: Extra inputs are not permitted"),
        ('limits = "discs only"', "", r"card\.limits: Field required"),
        ('kind = "percentile"', 'kind = "log"', r"intensity\.kind: .*'percentile'"),
        ("[card]", "[card", r"discs\.toml is not valid TOML"),
    ],
)
def test_a_wrong_value_is_named(recipe_file, old, new, sentence):
    text = recipe_file.read_text()
    assert old in text
    recipe_file.write_text(text.replace(old, new, 1))
    with pytest.raises(BadTrainingData, match=sentence):
        read_recipe(recipe_file)


def test_a_recipe_that_is_missing_or_no_text(tmp_path):
    with pytest.raises(BadTrainingData, match=r"none\.toml cannot be read: No such file"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "picture.toml").write_bytes(b"\x89PNG\xff")
    with pytest.raises(BadTrainingData, match="not valid TOML"):
        read_recipe(tmp_path / "picture.toml")


def test_stages_are_shortened_in_proportion(recipe_file):
    recipe = read_recipe(recipe_file)
    assert recipe.steps == 80
    assert [stage.steps for stage in recipe.scaled_to(16).stages] == [6, 10]
    assert [stage.steps for stage in recipe.scaled_to(1).stages] == [1, 1]


class TestSplit:
    def test_a_field_of_view_on_two_sides_is_refused(self, recipe_file):
        path = recipe_file.with_name("split.csv")
        path.write_text(re.sub(r"11,test", "0,test", path.read_text()))
        with pytest.raises(BadTrainingData, match=r"images of the field 0 are in two splits"):
            read_split(path)

    def test_a_missing_or_damaged_split(self, recipe_file, tmp_path):
        path = recipe_file.with_name("split.csv")
        path.write_text(path.read_text().replace("test", "exam"))
        with pytest.raises(BadTrainingData, match="damaged row"):
            read_split(path)
        with pytest.raises(BadTrainingData, match="cannot be read"):
            read_split(tmp_path / "none.csv")
