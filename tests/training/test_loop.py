"""The loop: it learns, repeats itself, goes on where it stopped, keeps its best, and ends in time."""

from __future__ import annotations

import csv
import json
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from napari_medt.core import BadTrainingData, Cancel, Cancelled, StorageError
from napari_medt.training import loop, run_folder
from napari_medt.training.curves import draw_curves
from napari_medt.training.loop import Run
from napari_medt.training.recipe import read_recipe
from napari_medt.training.run_folder import add_metrics, alone_in
from napari_medt.training.validation import number_of_tiles, tiles, validate
from tests.training.conftest import small_net


@pytest.fixture(autouse=True)
def _draws_nothing(monkeypatch):
    """Pictures after every validation would take most of the time."""
    monkeypatch.setattr(run_folder, "draw_curves", lambda *paths: None)


@pytest.fixture
def recipe(recipe_file):
    return read_recipe(recipe_file)


@pytest.fixture
def start(recipe, make_samples, tmp_path):
    """Begin a run on six images, watched on two others."""

    def begin(name="run", steps=None, **options):
        plan = recipe if steps is None else recipe.scaled_to(steps)
        return Run(plan, make_samples(6), make_samples(2, first=50), folder=tmp_path / name, **options)

    return begin


def metrics(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(net):
    return torch.cat([value.flatten().double() for value in net.state_dict().values()])


def interrupt_at(step):
    """A progress that cancels, and the cancel it sets."""
    cancel = Cancel()
    return {"cancel": cancel, "progress": lambda done, total, message="": cancel.set() if done == step else None}


def test_it_learns_discs(start, tmp_path):
    run = start()
    first = validate(run.averaged(), run._validation, (32, 32))["all"]
    net = run.train()
    assert validate(net, run._validation, (32, 32))["all"] > max(0.9, first + 0.2)
    rows = metrics(tmp_path / "run")
    assert [int(row["step"]) for row in rows] == list(range(8, 81, 8))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert float(rows[-1]["dice bright"]) == float(rows[-1]["dice all"]) > 0.9


def test_the_curves_of_a_run_are_drawn(tmp_path):
    for step in ("5", "10"):
        add_metrics(tmp_path, {"step": step, "seconds": "1", "loss": "0.5", "dice all": "0.8"})
    draw_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_the_same_recipe_gives_the_same_weights(start):
    one, two = start("one", 12).train(), start("two", 12).train()
    assert torch.equal(weights(one), weights(two))


def test_another_seed_gives_others(start, recipe):
    one = start("one", 4).train()
    other = start("two", 4)
    different = Run(
        recipe.scaled_to(4).model_copy(update={"seed": 2}),
        other._sampler._images["bright"],
        [],
        folder=other.folder.parent / "three",
    ).train()
    assert not torch.equal(weights(one), weights(different))


def test_looking_does_not_change_the_way(start, monkeypatch):
    """With many validations or few, the same batches are drawn."""
    often = start("often", 12)
    often.train()
    monkeypatch.setattr(loop, "VALIDATIONS", 1)
    seldom = start("seldom", 12)
    seldom.train()
    assert torch.equal(weights(often.net), weights(seldom.net))


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(start, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 7)
    whole = start("whole", 24)
    net = whole.train()
    with pytest.raises(Cancelled):
        start("parts", 24).train(**interrupt_at(17))
    rest = start("parts", 24, resume=True)
    assert rest.step in range(12, 18)  # a checkpoint, not the beginning
    assert torch.equal(weights(rest.train()), weights(net))
    assert torch.equal(weights(rest.net), weights(whole.net))
    both = [metrics(run.folder) for run in (whole, rest)]
    assert [[row["step"], row["loss"], row["dice all"]] for row in both[0]] == [
        [row["step"], row["loss"], row["dice all"]] for row in both[1]
    ]


def test_a_resumed_run_follows_its_own_shortened_plan(start, recipe):
    begun = start("run")
    begun.recipe, begun._validations = recipe.scaled_to(24), 3  # as where there was no time for more
    with pytest.raises(Cancelled):
        begun.train(**interrupt_at(9))
    resumed = start("run", resume=True)
    assert resumed.recipe.steps == 24
    assert recipe.steps == 80
    resumed.train()
    assert [row["step"] for row in metrics(resumed.folder)] == ["8", "16", "24"]


def test_a_run_that_ended_early_has_ended(start, recipe, make_samples, tmp_path, monkeypatch):
    """Begun again, as after a crash while the model was measured, it learns nothing more."""
    given = iter([0.8, 0.6, 0.5, 0.9])
    monkeypatch.setattr(loop, "VALIDATIONS", 4)
    monkeypatch.setattr(loop, "validate", lambda *_, **__: {"all": next(given)})
    change = {"optimisation": recipe.optimisation.model_copy(update={"patience": 2})}
    patient = recipe.scaled_to(8).model_copy(update=change)
    sides = make_samples(6), make_samples(2, first=50)
    messages = []
    net = Run(patient, *sides, folder=tmp_path / "run").train(progress=lambda *said: messages.append(said))
    assert messages[-1] == (6, 8, "ended early, since it did not get better any more")
    again = Run(patient, *sides, folder=tmp_path / "run", resume=True)
    assert torch.equal(weights(again.train()), weights(net))
    assert again.step == 6


def test_a_damaged_checkpoint_is_told(start, tmp_path):
    start("run", 4).train()
    path = tmp_path / "run" / "last.pt"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no checkpoint"):
        path.write_bytes(damaged)
        with pytest.raises(BadTrainingData, match=r"last\.pt is damaged; remove its folder"):
            start("run", 4, resume=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit to the size of a file")
def test_a_full_disk_leaves_the_old_checkpoint(start, tmp_path):
    import resource

    run = start("run", 2)
    run.train()
    path = tmp_path / "run" / "last.pt"
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(StorageError, match="larger than this disk allows"):
            run._save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert path.read_bytes() == before


def test_a_folder_with_a_run_is_not_begun_anew(start, tmp_path):
    start("run", 4).train()
    before = (tmp_path / "run" / "last.pt").read_bytes()
    with pytest.raises(BadTrainingData, match="holds a run already; go on with it by --resume"):
        start("run", 4)
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_a_run_that_is_stopped_says_how_to_go_on(start, tmp_path):
    with pytest.raises(Cancelled, match=r"Stopped at step 3 of 8; the checkpoint in .*run is kept.*--resume"):
        start("run", 8).train(**interrupt_at(3))
    assert (tmp_path / "run" / "last.pt").is_file()


def test_two_trainings_do_not_share_a_folder(tmp_path):
    refused = pytest.raises(BadTrainingData, match="Another training runs in")
    with alone_in(tmp_path / "new"), refused, alone_in(tmp_path / "new"):
        pass
    leftover = tmp_path / "new" / ".last.pt-123-00ff00ff.tmp"  # of a killed one
    leftover.write_bytes(b"half a checkpoint")
    with alone_in(tmp_path / "new"):  # once it has ended
        assert not leftover.exists()


def test_a_run_of_another_recipe_is_not_gone_on_with(start, recipe, make_samples, tmp_path):
    start("run", 4).train()
    other = recipe.model_copy(update={"seed": 99})
    with pytest.raises(BadTrainingData, match="follows another recipe"):
        Run(other, make_samples(1), [], folder=tmp_path / "run", resume=True)
    shorter = recipe.scaled_to(2)  # of which the plan may be a shortened form, but is not
    with pytest.raises(BadTrainingData, match="follows another recipe.*choose another folder for this one"):
        Run(shorter, make_samples(1), [], folder=tmp_path / "run", resume=True)
    renamed = recipe.scaled_to(4).model_copy(update={"title": "Better words"})
    assert Run(renamed, make_samples(1), [], folder=tmp_path / "run", resume=True).recipe.title == "Better words"
    (tmp_path / "run" / "plan.json").write_text("{}")
    with pytest.raises(BadTrainingData, match=r"plan\.json is missing or damaged"):
        start("run", resume=True)


def test_the_best_state_is_kept(start, monkeypatch):
    """Where the score falls later, the model is the one from before."""
    given = iter([0.3, 0.8, 0.6, 0.5])
    monkeypatch.setattr(loop, "VALIDATIONS", 4)
    monkeypatch.setattr(loop, "validate", lambda *_, **__: {"all": next(given)})
    seen = {}
    run = start("run", 8)
    inner = run.averaged
    run.averaged = lambda: seen.setdefault(run.step, inner())
    net = run.train()
    assert list(seen) == [2, 4, 6, 8]
    assert torch.equal(weights(net), weights(seen[4]))
    assert not torch.equal(weights(net), weights(seen[8]))


def test_without_validation_images_the_last_state_is_the_model(recipe, make_samples, tmp_path):
    run = Run(recipe.scaled_to(4), make_samples(2), [], folder=tmp_path / "run")
    assert torch.equal(weights(run.train()), weights(run.averaged()))
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_stages_feed_their_window_and_batch(start):
    run = start("run", 8)
    shapes = []
    inner = run._one_step
    run._one_step = lambda batch: (shapes.append(batch.images.shape), inner(batch))[1]
    run._validation = []
    run.train()
    assert shapes == [(4, 3, 16, 16)] * 3 + [(4, 3, 32, 32)] * 5


def test_minutes_become_steps_and_the_learning_rate_comes_to_its_end(start, tmp_path, monkeypatch):
    """On a clock where every step takes a second."""
    clock = iter(range(10**6))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    run = start("run", 4000, max_minutes=2)
    run._one_step = lambda batch, step=run._one_step: (next(clock), step(batch))[1]
    with pytest.raises(Cancelled):
        run.train(**interrupt_at(12))
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert 20 < plan["steps"] < 120
    assert plan["steps"] == run.recipe.steps == sum(stage["steps"] for stage in plan["recipe"]["stages"])
    assert plan["seconds_per_step"] > 0
    run.train()
    assert run.step == plan["steps"]
    assert run._optimiser.param_groups[0]["lr"] < 0.03 * run.recipe.optimisation.learning_rate


def test_enough_minutes_change_nothing(start):
    run = start("run", 12, max_minutes=60)
    run.train()
    assert run.step == 12


def test_the_plan_tells_what_it_was_made_with(start, tmp_path):
    start("run", 2).train()
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["recipe"]["seed"] == 1
    assert set(plan["versions"]) == {"python", "torch", "numpy", "monai", "lightning-fabric"}
    assert plan["versions"]["torch"] == torch.__version__
    assert (plan["device"], plan["threads"]) == ("cpu", 1)


def test_a_loss_that_is_no_number_stops_the_run(start):
    run = start("run", 4)
    torch.nn.init.constant_(run.net[0][0].weight, float("nan"))
    with pytest.raises(BadTrainingData, match="lost its way at step 1: .*choose a smaller learning rate"):
        run.train()


def test_nothing_to_learn_from(recipe, tmp_path):
    with pytest.raises(BadTrainingData, match="no images to learn from"):
        Run(recipe, [], [], folder=tmp_path / "run")


def test_a_run_folder_that_cannot_be_made(recipe, make_samples, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="run folder"):
        Run(recipe, make_samples(1), [], folder=tmp_path / "file" / "run")


class TestValidation:
    def test_windows_lie_side_by_side_around_the_middle(self, make_samples):
        (sample,) = make_samples(1, size=(40, 150))
        images, labels, positions = tiles(sample, (32, 32))
        assert images.shape == (3, 3, 32, 32)  # one row of three
        assert positions.tolist() == [[0, -32], [0, 0], [0, 32]]
        for index in range(3):
            where = slice(4, 36), slice(27 + 32 * index, 59 + 32 * index)
            assert (labels[index].numpy() == sample.labels[where]).all()
            assert (images[index].numpy() == sample.image[(slice(None), *where)]).all()

    def test_small_images_are_filled_up_with_background(self, make_samples):
        (sample,) = make_samples(1, size=(20, 20))
        images, labels, _ = tiles(sample, (32, 32))
        assert images.shape == (1, 3, 32, 32)
        assert labels.sum() == sample.labels.sum()

    def test_number_of_windows(self, make_samples):
        samples = [*make_samples(1, size=(40, 150)), *make_samples(1, size=(9, 9)), *make_samples(1, size=(400, 400))]
        assert number_of_tiles(samples, (32, 32)) == sum(len(tiles(s, (32, 32))[0]) for s in samples) == 13

    def test_scores_are_means_over_images(self, make_samples, threshold):
        samples = [*make_samples(2), *make_samples(1, first=7, group="dark")]
        threshold.net.limit.data.fill_(0.6)  # some pixels are missed
        scores = validate(threshold.net, samples, (16, 16))
        assert scores["all"] == pytest.approx((2 * scores["bright"] + scores["dark"]) / 3)
        assert 0.7 < scores["all"] < 1

    def test_no_images_no_scores(self, threshold):
        assert validate(threshold.net, [], (16, 16)) == {}


class TestBoard:
    """What TensorBoard gets, where it is installed."""

    @pytest.fixture
    def written(self, monkeypatch):
        """Stand in for TensorBoard and note what it is given: purge step, then name, value and step."""
        notes = []

        class Writer:
            def __init__(self, folder, purge_step):
                notes.append((folder, purge_step))

            def add_scalar(self, name, value, step):
                notes.append((name, value, step))

            def close(self):
                notes.append("closed")

        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
        return notes

    def test_it_gets_loss_rate_and_validation_and_changes_no_weight(self, start, tmp_path, written, monkeypatch):
        watched = start("watched", steps=20).train()
        first, *scalars, last = written
        assert (first, last) == ((str(tmp_path / "watched" / "tensorboard"), None), "closed")
        assert [step for name, _, step in scalars if name == "loss"] == [10, 20]
        assert [step for name, _, step in scalars if name == "validation/bright"] == list(range(2, 21, 2))
        rates = [value for name, value, _ in scalars if name == "learning rate"]
        assert rates[0] > rates[1] > 0
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        assert torch.equal(weights(start("alone", steps=20).train()), weights(watched))
        assert not (tmp_path / "alone" / "tensorboard").exists()

    def test_a_run_that_goes_on_replaces_what_came_after_its_checkpoint(self, start, tmp_path, written):
        with pytest.raises(Cancelled):
            start(steps=20).train(**interrupt_at(10))
        assert written[-1] == "closed"
        start(steps=20, resume=True).train()
        assert (str(tmp_path / "run" / "tensorboard"), 11) in written

    def test_tensorboard_itself_reads_it_again(self, start, tmp_path):
        accumulator = pytest.importorskip(
            "tensorboard.backend.event_processing.event_accumulator", reason="needs TensorBoard"
        )
        start(steps=20).train()
        found = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
        assert [event.step for event in found.Scalars("loss")] == [10, 20]
        assert {"learning rate", "validation/all"} <= set(found.Tags()["scalars"])


def test_validation_of_several_classes_says_each(make_samples):
    samples = [replace(sample, labels=sample.labels * (1 + index)) for index, sample in enumerate(make_samples(2))]
    net = small_net(num_classes=3).eval()
    scores = validate(net, samples, (16, 16), classes=("one", "two"))
    assert list(scores) == ["one", "two", "bright", "all"]
    assert (scores["one"] + scores["two"]) / 2 == pytest.approx(scores["all"])
    assert list(validate(net, samples, (16, 16))) == ["bright", "all"]
