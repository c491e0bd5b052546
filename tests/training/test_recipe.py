"""Recipes and splits: what the project's own say, and one sentence for each mistake."""

from __future__ import annotations

import csv
import importlib.util
import shutil
from pathlib import Path

import pytest

from napari_medt.core import BadTrainingData
from napari_medt.nets import create_net
from napari_medt.training.data import find_data
from napari_medt.training.recipe import read_recipe


def script(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def own(root):
    return sorted(path.stem for path in (root / "recipes").glob("*.toml"))


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", own(Path(__file__).parents[2]))


class TestOwnRecipes:
    def test_network_card_and_size(self, root, name):
        """Each can be built, says all that a card needs, and stays under 8 MB at half precision."""
        recipe = read_recipe(root / "recipes" / f"{name}.toml")
        net = create_net(recipe.architecture, **recipe.net_options)
        assert net.num_classes == len(recipe.classes)
        assert recipe.name == name
        assert all(recipe.card.model_dump().values())
        assert recipe.to_card().citation.count(";") >= 1  # the data and the network
        assert 2 * sum(p.numel() for p in net.parameters()) < 8e6

    def test_held_out_images_are_exactly_those_of_the_index(self, root, data_folder, name):
        recipe = read_recipe(root / "recipes" / f"{name}.toml")
        found = find_data(recipe, data_folder, beside=root / "recipes")
        assert not found.problems
        with (found.folder / "index.csv").open(newline="") as file:
            held_out = {row["file"].split(".")[0] for row in csv.DictReader(file) if row["split"] != "train"}
        assert {case.name for case in found.on("test")} == held_out
        groups = [{case.group for case in found.on(side)} for side in ("train", "validation", "test")]
        assert groups[0] == groups[1] == groups[2] == (set(recipe.data.weights) or {""})

    def test_the_other_splits_are_made_again(self, root, data_folder, tmp_path):
        module = script(shutil.copy(root / "recipes" / "make_splits.py", tmp_path))
        module.main(data_folder, tmp_path)
        for name in module.FOLDERS:
            assert (tmp_path / f"{name}-split.csv").read_text() == (root / "recipes" / f"{name}-split.csv").read_text()

    def test_the_split_of_the_nuclei_is_made_again(self, root, data_folder, tmp_path):
        module = script(shutil.copy(root / "recipes" / "make_nuclei_split.py", tmp_path))
        module.main(data_folder / "nuclei_dsb2018" / "index.csv")
        made = (tmp_path / "nuclei-split.csv").read_bytes()
        assert made == (root / "recipes" / "nuclei-split.csv").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("seed = 1", "seed = 'one'", r"In the recipe discs\.toml, seed: .*integer.*; correct that value\."),
        ("batch = 4", "batch = 0", r"stages\.0\.batch: .*greater than or equal to 1"),
        ("clip = 5.0", "clip = 5.0\nclap = 1", r"optimisation\.clap: there is no such entry"),
        ('title = "Discs"', "", r"title: Field required"),
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


class TestShared:
    def test_a_recipe_changes_what_it_extends(self, tmp_path, recipe_file):
        (tmp_path / "base.toml").write_text(recipe_file.read_text())
        more = tmp_path / "more.toml"
        more.write_text('extends = "base.toml"\nname = "more"\n[optimisation]\nclip = 1.0\n')
        recipe, base = read_recipe(more), read_recipe(recipe_file)
        assert (recipe.name, recipe.optimisation.clip) == ("more", 1.0)
        assert recipe.optimisation.learning_rate == base.optimisation.learning_rate
        assert recipe.stages == base.stages

    def test_a_circle_or_a_missing_one_is_told(self, tmp_path):
        (tmp_path / "a.toml").write_text('extends = "a.toml"')
        with pytest.raises(BadTrainingData, match="not in a circle"):
            read_recipe(tmp_path / "a.toml")
        (tmp_path / "b.toml").write_text('extends = "c.toml"')
        with pytest.raises(BadTrainingData, match=r"c\.toml cannot be read"):
            read_recipe(tmp_path / "b.toml")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("window = 16\n", "window = [16, 16, 16]\n", "a stage has windows of 3 axes, but the model has 2"),
        ("mirror = [1]", "mirror = [2]", "mirror names an axis that is none of 0 to 1"),
        ('values = { disc = "any" }', 'values = { disk = "any" }', "'disk', which is no class"),
        ("num_classes = 2", "num_classes = 3", "num_classes"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_named(recipe_file, old, new, sentence):
    text = recipe_file.read_text()
    assert old in text
    recipe_file.write_text(text.replace(old, new))
    with pytest.raises(BadTrainingData, match=sentence):
        read_recipe(recipe_file)
