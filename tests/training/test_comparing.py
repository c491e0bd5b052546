"""A study: arms that differ in the network alone, trained alike, measured alike, and told apart honestly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from napari_medt.core import BadTrainingData, Cancel, Cancelled
from napari_medt.measure import paired_test, summarise
from napari_medt.nets import create_net
from napari_medt.training import comparing, loop, run_folder, run_study
from napari_medt.training.study import MOST_STEPS, read_study
from napari_medt.training.study_tables import Row, order_notes, write_tables

STUDY = """
title = "Small and smaller"
question = "Does it matter?"
recipe = "../discs.toml"
seeds = [1]
steps = 8
net_options = { in_channels = 3, num_classes = 2 }

[[arms]]
name = "first"
architecture = "small"

[[arms]]
name = "second"
title = "Slow"
architecture = "small"
net_options = { img_size = 16 }
optimisation = { learning_rate = 1e-4 }

[published."Elsewhere, Dice"]
first = 80
second = 90
"""
SHIPPED = sorted((Path(__file__).parents[2] / "recipes" / "studies").glob("*.toml"))


@pytest.fixture(autouse=True)
def _looks_once(monkeypatch):
    """Validations and pictures after every step would take most of the time."""
    monkeypatch.setattr(loop, "VALIDATIONS", 1)
    monkeypatch.setattr(run_folder, "draw_curves", lambda *paths: None)


@pytest.fixture
def study_file(recipe_file):
    folder = recipe_file.parent / "studies"
    folder.mkdir()
    (folder / "tiny.toml").write_text(STUDY)
    return folder / "tiny.toml"


@pytest.fixture
def run(study_file, data, tmp_path):
    """Run the study, or what is left of it."""
    return lambda **options: run_study(study_file, out=tmp_path / "out", data=data, device="cpu", **options)


def changed(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


class TestReader:
    def test_arms_share_everything_but_the_network(self, study_file):
        study = read_study(study_file)
        one, two = (study.recipe_of(arm, 7) for arm in study.arms)
        assert (one.steps, [stage.steps for stage in one.stages]) == (8, [3, 5])
        assert (two.net_options, two.optimisation.learning_rate) == (
            {"in_channels": 3, "num_classes": 2, "img_size": 16},
            1e-4,
        )
        same = {name: getattr(one, name) for name in ("name", "title", "architecture", "net_options", "optimisation")}
        assert two.model_copy(update=same) == one

    @pytest.mark.parametrize(
        ("old", "new", "sentence"),
        [
            ('title = "Slow"', "seed = 3", r"In the study tiny.toml, arms.1.seed: there is no such entry"),
            ('title = "Slow"', "steps = 30", r"arms.1.steps: there is no such entry"),
            ('title = "Slow"', 'data = { folder = "others" }', r"arms.1.data: there is no such entry"),
            ("learning_rate = 1e-4", "patience = 2", r"patience would end second before the others"),
            (
                "learning_rate = 1e-4",
                "speed = 2",
                r"In the arm second of the study tiny, optimisation.speed: there is no such",
            ),
            ("steps = 8", "", r"either steps or minutes"),
            ("steps = 8", "steps = 8\nminutes = 3", r"either steps or minutes"),
            ('"second"', '"first"', r"an arm or a seed stands there twice"),
            ("seeds = [1]", "seeds = [1, 1]", r"an arm or a seed stands there twice"),
            ("second = 90", "third = 90", r"published names 'third', which is no arm"),
            ("../discs", "../circles", r"The recipe .*circles.toml cannot be read"),
            ("title =", "title", r"The study tiny.toml is not valid TOML"),
        ],
    )
    def test_unequal_conditions_are_refused(self, study_file, old, new, sentence):
        study_file.write_text(study_file.read_text().replace(old, new, 1))
        with pytest.raises(BadTrainingData, match=sentence):
            read_study(study_file)

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
    def test_every_arm_that_is_shipped_takes_its_windows(self, path):
        study = read_study(path)
        for arm in study.arms:
            recipe = study.recipe_of(arm, study.seeds[0])
            net = create_net(recipe.architecture, **recipe.net_options).eval()
            dims, channels = len(recipe.window), 3 if recipe.channels == "rgb" else 1
            with torch.inference_mode():
                logits = net(torch.zeros(1, channels, *recipe.stages[0].size(dims)))
            assert logits.shape[1] == len(recipe.classes)

    def test_the_comparisons_of_the_papers_are_there(self):
        assert {path.stem for path in SHIPPED} == {"axial-family", "u-transformer-parts", "unetr-unet", "window-tokens"}


def test_a_study_becomes_tables_that_follow_from_the_scores(run, tmp_path):
    """The figures are those that anyone computes again from what each run measured."""
    found = run()
    out = tmp_path / "out"
    assert (found.seeds, found.cases, found.unfinished) == ((1,), 2, ())
    scores = {arm: pd.read_csv(out / f"{arm}-1" / "held_out.csv")["dice"].tolist() for arm in ("first", "second")}
    first, second = found.rows
    summary, test = summarise(scores["first"]), paired_test(scores["second"], scores["first"])
    assert (first.dice, first.low, first.high, first.difference) == (
        pytest.approx(summary.mean),
        summary.low,
        summary.high,
        None,
    )
    assert second.difference == pytest.approx(test.difference) == pytest.approx(second.dice - first.dice)
    net = create_net("small", in_channels=3, num_classes=2)
    assert first.parameters == sum(p.numel() for p in net.parameters())
    assert (first.steps, second.steps) == (8, 8)
    assert 0 < first.seconds_per_step < 5
    assert 0 < first.loading_share < 1
    assert (out / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    table = pd.read_csv(out / "table.csv")
    np.testing.assert_allclose(table["dice"], [first.dice, second.dice])
    assert len(pd.read_csv(out / "scores.csv")) == 4
    text = (out / "table.md").read_text()
    assert all(part in text for part in ("Does it matter?", "8 steps an arm, seed 1 alone", "| Slow |", "| 90 |"))
    order = "is the same" if second.dice > first.dice else "is not the same: Slow is not above first"
    assert f"The order on Elsewhere, Dice {order}." in text


class TestGoingOn:
    def test_what_is_finished_is_kept_and_the_rest_follows(self, run, study_file, tmp_path, monkeypatch):
        changed(study_file, "seeds = [1]", "seeds = [1, 2]")
        changed(study_file, "steps = 8", "steps = 2")
        found = run(only=["second"])
        assert found.unfinished == ("first-1", "first-2")
        assert [row.arm for row in found.rows] == ["second"]
        made = []
        real = comparing.Run
        monkeypatch.setattr(
            comparing, "Run", lambda *r, **options: made.append(options["folder"].name) or real(*r, **options)
        )
        found = run()
        assert made == ["first-1", "first-2"]
        assert (found.seeds, found.unfinished, [row.arm for row in found.rows]) == ((1, 2), (), ["first", "second"])
        assert found.rows[0].lowest_seed <= found.rows[0].dice <= found.rows[0].highest_seed
        before = (tmp_path / "out" / "table.csv").read_bytes()
        run()
        assert len(made) == 2
        assert (tmp_path / "out" / "table.csv").read_bytes() == before

    def test_an_interrupted_run_goes_on_to_the_same_weights(self, run, tmp_path, study_file, data):
        cancel = Cancel()

        def stop(done, total, message="", /):
            if "first" in message and "loss" in message and done == 5:
                cancel.set()

        with pytest.raises(Cancelled):
            run(cancel=cancel, progress=stop)
        assert torch.load(tmp_path / "out" / "first-1" / "last.pt", weights_only=True)["step"] == 5
        found = run()
        whole = run_study(study_file, out=tmp_path / "whole", data=data, device="cpu", only=["first"])
        assert found.rows[0].dice == whole.rows[0].dice

    def test_the_end_of_the_time_is_no_error(self, run, tmp_path):
        found = run(max_minutes=1e-6)
        assert (found.rows, found.unfinished) == ((), ("first-1", "second-1"))
        assert not (tmp_path / "out" / "table.md").exists()

    def test_runs_of_another_study_or_split_are_refused(self, run, study_file, tmp_path):
        run()
        changed(study_file, "steps = 8", "steps = 9")
        with pytest.raises(BadTrainingData, match="first-1 was trained for other steps than the study tiny says"):
            run()
        changed(study_file, "steps = 9", "steps = 8")
        changed(study_file, "1e-4", "1e-3")
        with pytest.raises(BadTrainingData, match="second-1 follows another recipe"):
            run()
        changed(study_file, "1e-3", "1e-4")
        changed(tmp_path / "out" / "second-1" / "held_out.csv", "\n10,", "\n12,")
        with pytest.raises(BadTrainingData, match="second-1 was measured on other images than first-1"):
            run()

    def test_an_unknown_arm_names_those_there_are(self, run):
        with pytest.raises(BadTrainingData, match="no arm third; choose from first, second"):
            run(only=["third"])


def test_minutes_are_measured_once_an_arm(run, study_file, tmp_path):
    """All seeds of an arm take as many steps as its first run had time for."""
    changed(study_file, "steps = 8", "minutes = 0.01")
    changed(study_file, "seeds = [1]", "seeds = [1, 2]")
    found = run(only=["first"])
    plans = [json.loads((tmp_path / "out" / f"first-{seed}" / "plan.json").read_text()) for seed in (1, 2)]
    assert plans[0]["recipe"]["stages"] == plans[1]["recipe"]["stages"]
    assert 10 < plans[0]["steps"] == found.rows[0].steps < MOST_STEPS
    assert run(only=["first"]).rows == found.rows


def test_a_split_without_held_out_images(run, recipe_file):
    changed(recipe_file.parent / "split.csv", "test", "train")
    with pytest.raises(BadTrainingData, match="holds no image out to compare on"):
        run()


def test_the_order_of_papers_is_held_against_ours(study_file):
    def row(arm, dice):
        blank = dict.fromkeys(Row.__dataclass_fields__, None)
        return Row(**blank | {"arm": arm, "title": arm, "dice": dice})

    study = read_study(study_file)
    assert order_notes(study, [row("first", 0.5), row("second", 0.6)]) == ["The order on Elsewhere, Dice is the same."]
    turned = "The order on Elsewhere, Dice is not the same: second is not above first."
    assert order_notes(study, [row("first", 0.6), row("second", 0.5)]) == [turned]
    assert order_notes(study, [row("first", 0.6)]) == []


def test_nothing_is_compared_before_there_is_anything(study_file, tmp_path):
    found = write_tables(read_study(study_file), tmp_path)
    assert (found.rows, found.unfinished) == ((), ("first-1", "second-1"))
    assert list(tmp_path.glob("*.md")) == []
