"""Corrections: what was not reviewed teaches nothing, edits weigh more, patients stay apart, nothing is lost in a crash."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_medt.core import BadTrainingData, Cancel, Cancelled, Control, Geometry, MedtError, Volume
from napari_medt.engine import predict
from napari_medt.measure import dice
from napari_medt.nets import registry
from napari_medt.training import tuning
from napari_medt.training.adapters import LowRank, choose, merge, merged_state
from napari_medt.training.corrections import (
    CLASSES,
    EDITED,
    EDITED_PLACES,
    GROUND_PLACES,
    SEEN,
    SHIFT,
    UNSEEN,
    Correction,
    WeightedLoss,
    hold_out,
    to_corrected,
)
from napari_medt.training.fine_tuning import fine_tune, fine_tuning_cost, with_classes
from napari_medt.training.optimise import dice_and_cross_entropy
from napari_medt.zoo import list_models


def digest(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture
def case(make_discs):
    """A picture with its discs as a correction."""

    def make(seed=1, **more):
        picture, ids = make_discs(seed)
        return Correction(picture, (ids > 0).astype(np.uint8), **more)

    return make


@pytest.fixture
def scans(monkeypatch, make_model):
    """A model of scans, and scans of bright balls with their masks."""

    def net(img_size=16, in_channels=1, num_classes=2):
        made = nn.Sequential(
            nn.Conv3d(in_channels, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, num_classes, 1)
        )
        made.in_channels, made.num_classes = in_channels, num_classes
        return made

    info = registry.NetInfo("small-3d", "Two convolutions", (3,), 1, "", "", {"in_channels": 1, "num_classes": 2})
    monkeypatch.setitem(registry._NETS, "small-3d", (info, net))
    torch.manual_seed(0)
    model = make_model(
        net(), architecture="small-3d", channels="grey", spatial_dims=3, window=(8, 16, 16), spacing=(2.0, 1.0, 1.0)
    )

    def make(seed=0, **more):
        rng = np.random.default_rng(seed)
        z, y, x = np.ogrid[:12, :24, :20]
        centre = rng.uniform((4, 8, 6), (8, 16, 14))
        ball = ((z - centre[0]) * 2) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < 36
        image = np.clip(ball * 120 + rng.normal(60, 10, ball.shape), 0, 255).astype(np.uint8)
        volume = Volume.from_array(image, geometry=Geometry.from_spacing((2.0, 1.0, 1.0), units="mm"))
        return Correction(volume, ball.astype(np.uint8), **more)

    return model, make


class TestScans:
    def test_a_mistake_in_scans_goes_away(self, scans):
        model, make = scans
        learnt = fine_tune(model, [make(0), make(1)], steps=60, learning_rate=3e-2)
        other = make(5)
        assert dice(predict(learnt, other.image).labels, other.labels) > 0.9

    def test_a_picture_is_refused(self, scans):
        with pytest.raises(BadTrainingData, match="learns from 3D scans; give the whole scan"):
            fine_tune(scans[0], [(np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8))])


class TestWhatCounts:
    def test_what_was_not_reviewed_teaches_nothing(self, make_model, make_discs):
        """Two masks that differ only where nobody looked give the same model."""
        picture, ids = make_discs(1)
        right = (ids > 0).astype(np.uint8)
        reviewed = np.zeros(right.shape, bool)
        reviewed[:24] = True
        wrong = np.where(reviewed, right, 1 - right).astype(np.uint8)
        model = make_model()
        one, two = (fine_tune(model, [Correction(picture, mask, reviewed)], steps=3) for mask in (right, wrong))
        assert same(digest(one.net), digest(two.net))

    def test_edited_places_weigh_more_and_are_drawn_from(self, case, make_model):
        edited = np.zeros((48, 48), bool)
        edited[3, 4] = True
        sample = to_corrected(case(reviewed=np.zeros((48, 48), bool), edited=edited), make_model().card, name="a")
        assert sample.labels[3, 4] >> SHIFT == EDITED
        assert set(np.unique(sample.labels >> SHIFT)) == {UNSEEN, EDITED}
        assert sample.places[EDITED_PLACES].tolist() == [[3, 4]]
        assert sample.places[GROUND_PLACES].tolist() == [[3, 4]]

    def test_a_mask_of_what_was_reviewed_that_does_not_fit_is_refused(self, case, make_model):
        with pytest.raises(BadTrainingData, match=r"reviewed is told for \(3, 3\) samples"):
            fine_tune(make_model(), [case(reviewed=np.ones((3, 3), bool))])

    def test_nothing_reviewed_is_refused(self, case, make_model):
        with pytest.raises(BadTrainingData, match="Nothing of the images was reviewed"):
            fine_tune(make_model(), [case(reviewed=np.zeros((48, 48), bool))])

    @settings(max_examples=15)
    @given(classes=st.integers(2, 4), overlapping=st.booleans(), seed=st.integers(0, 999))
    def test_with_equal_weights_the_loss_is_that_of_a_training(self, classes, overlapping, seed):
        torch.manual_seed(seed)
        logits = torch.randn(2, classes, 5, 6)
        labels = torch.randint(2, (2, classes, 5, 6)) if overlapping else torch.randint(classes, (2, 5, 6))
        usual = dice_and_cross_entropy(overlapping=overlapping)(logits, labels)
        weighted = WeightedLoss(overlapping=overlapping)(logits, labels | (SEEN << SHIFT))
        torch.testing.assert_close(weighted, usual)

    def test_an_edit_counts_three_times(self):
        logits, labels = torch.randn(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
        weights = torch.full((1, 4, 4), SEEN)
        weights[0, 1, 1] = EDITED
        each = nn.functional.cross_entropy(logits, labels, reduction="none")
        expected = (each.sum() + 2 * each[0, 1, 1]) / 18
        chance = logits.softmax(1)[:, 1]
        miss = 1 - 1e-5 / (chance.sum() + 2 * chance[0, 1, 1] + 1e-5)
        found = WeightedLoss(overlapping=False)(logits, labels | (weights << SHIFT))
        torch.testing.assert_close(found, expected + miss)
        assert CLASSES == 63


class TestPatients:
    def test_a_patient_on_both_sides_is_refused(self, case, make_model):
        cases = [case(1, patient="Ada"), case(2, patient="Ada", held_out=True)]
        with pytest.raises(BadTrainingData, match="patient Ada are held out and learnt from at once"):
            fine_tune(make_model(), cases)

    def test_everything_held_out_is_refused(self, case, make_model):
        with pytest.raises(BadTrainingData, match="no corrected mask to learn from"):
            fine_tune(make_model(), [case(held_out=True)])

    @given(st.lists(st.integers(0, 300), min_size=1, max_size=60), st.integers(0, 300))
    def test_a_patient_stays_on_its_side_whoever_comes(self, numbers, newcomer):
        cases = [Correction(None, None, patient=f"patient {n}") for n in numbers]
        more = [Correction(None, None, patient=f"patient {newcomer}"), *cases]
        sides = {c.patient: c.held_out for c in hold_out(cases)}
        assert sides.items() <= {c.patient: c.held_out for c in hold_out(more)}.items()
        assert not any(c.held_out for c in hold_out(cases, share=0))
        assert all(c.held_out for c in hold_out(cases, share=1))

    def test_held_out_cases_are_watched_by_structure_and_the_best_state_is_kept(self, case, make_model):
        events = []
        cases = [case(1), case(2, patient="b", held_out=True)]
        learnt = fine_tune(make_model(), cases, steps=12, learning_rate=2e-2, on_step=events.append)
        looks = [event for event in events if "validation" in event]
        assert looks[0]["step"] == 0
        assert looks[-1]["step"] == 12
        assert all(set(look["validation"]) == {"disc"} for look in looks)
        best = max(looks[1:], key=lambda look: (look["validation"]["disc"], look["step"]))
        assert any(f"after step {best['step']} was the best on 1 held-out" in note for note in learnt.card.notes)
        assert all(0 <= event["training"]["disc"] <= 1 for event in events if "loss" in event)

    def test_what_is_held_out_does_not_change_what_is_learnt_from(self, case, make_model, monkeypatch):
        drawn = []
        usual = tuning.Sampler.cut
        monkeypatch.setattr(
            tuning.Sampler, "cut", lambda self, sample, *rest: drawn.append(sample.unit) or usual(self, sample, *rest)
        )
        fine_tune(make_model(), [case(1, patient="a"), case(2, patient="b", held_out=True)], steps=6)
        assert set(drawn) == {"a"}


class TestRehearsal:
    def test_the_model_labels_what_it_rehearses(self, case, make_model, make_discs):
        picture, _ = make_discs(3)
        cases = [case(1), Correction(picture, None, group="rehearsal")]
        learnt = fine_tune(make_model(), cases, steps=2)
        assert "1 corrected image in 2 steps" in learnt.card.notes[0]

    def test_an_image_without_a_mask_is_refused_elsewhere(self, make_model, make_discs):
        with pytest.raises(BadTrainingData, match="image without a mask"):
            fine_tune(make_model(), [Correction(make_discs(1)[0], None)])


class TestPresets:
    def small(self):
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 2, 1)
        )

    def test_adapters_change_nothing_at_first_and_merge_into_the_same_function(self):
        net, x = self.small().eval(), torch.randn(1, 3, 8, 8)
        before, names = net(x), list(net.state_dict())
        choose(net, "adapters", x, torch.zeros(1, 2))
        torch.testing.assert_close(net(x), before)
        low = [module for module in net.modules() if isinstance(module, LowRank)]
        assert len(low) == 2
        assert not net[0].parametrizations.weight.original.requires_grad
        for module in low:
            nn.init.normal_(module.up)
        changed, state = net(x), merged_state(net)
        assert not torch.allclose(changed, before)
        merge(net)
        assert set(net.state_dict()) == set(state) == set(names)
        torch.testing.assert_close(net(x), changed)
        assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())

    def test_last_layers_leave_the_first_as_they_are(self, case, make_model):
        model = make_model()
        learnt = fine_tune(model, [case()], steps=3, learns="last layers")
        changed = {n for n, v in digest(learnt.net).items() if not torch.equal(v, model.net.state_dict()[n])}
        assert changed == {"1.1.weight", "1.1.bias", "2.weight", "2.bias"}

    @pytest.mark.parametrize("learns", ["last layers", "adapters", "everything"])
    def test_all_presets_learn(self, case, make_model, learns):
        losses = []
        fine_tune(
            make_model(), [case()], steps=30, learns=learns, learning_rate=2e-2,
            on_step=lambda event: losses.append(event["loss"]),
        )  # fmt: skip
        assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:3])

    def test_an_unknown_preset(self, case, make_model):
        with pytest.raises(MedtError, match="Nothing learns as 'some'; choose one of everything"):
            fine_tune(make_model(), [case()], learns="some")

    def test_the_cost_is_measured_and_grows_with_what_learns(self, make_model):
        model = make_model()
        before = digest(model.net)
        everything, last = (fine_tuning_cost(model, learns=learns) for learns in ("everything", "last layers"))
        assert everything.nbytes > last.nbytes > 0
        assert everything.seconds_per_step > 0
        assert fine_tuning_cost(model, batch=4).nbytes > everything.nbytes
        assert same(before, digest(model.net))


class TestNewStructures:
    def test_known_classes_keep_what_they_know(self, make_model):
        model = make_model()
        net, card = with_classes(model, ("background", "ring", "disc"))
        head = [name for name, value in model.net.state_dict().items() if net.state_dict()[name].shape != value.shape]
        for name in head:
            old, new = model.net.state_dict()[name], net.state_dict()[name]
            assert torch.equal(new[[0, 2]], old[[0, 1]])
        assert head
        assert card.classes == ("background", "ring", "disc")

    def test_a_new_structure_is_learnt(self, make_model, make_discs):
        picture, ids = make_discs(1)
        masks = np.where(ids > 0, 1, np.where(picture > 70, 2, 0)).astype(np.uint8)
        learnt = fine_tune(make_model(), [(picture, masks)], steps=3, classes=("background", "disc", "haze"))
        assert learnt.card.classes == ("background", "disc", "haze")
        assert predict(learnt, picture).labels.max() <= 2

    @pytest.mark.parametrize("classes", [("disc", "background"), ("background",), ("background", "disc", "disc")])
    def test_classes_that_cannot_be(self, make_model, classes):
        with pytest.raises(BadTrainingData, match="name background first and each structure once"):
            with_classes(make_model(), classes)


class Crash(Exception):
    """Stands for a power cut."""


class TestInterruptions:
    @pytest.fixture(autouse=True)
    def _always_saved(self, monkeypatch):
        monkeypatch.setattr(tuning, "SAVE_EVERY", 0.0)

    @pytest.mark.parametrize("learns", ["everything", "adapters"])
    def test_after_a_crash_it_ends_as_if_there_had_been_none(self, case, make_model, tmp_path, learns):
        cases, model = [case(1), case(2, patient="b", held_out=True)], make_model()
        whole = fine_tune(model, cases, steps=8, learns=learns)

        def crash(event):
            if event["step"] == 5 and "loss" in event:
                raise Crash

        with pytest.raises(Crash):
            fine_tune(model, cases, steps=8, learns=learns, folder=tmp_path, on_step=crash)
        steps = []
        again = fine_tune(
            model, cases, steps=8, learns=learns, folder=tmp_path,
            on_step=lambda event: steps.append(event["step"]) if "loss" in event else None,
        )  # fmt: skip
        assert steps == [5, 6, 7, 8]
        assert same(digest(whole.net), digest(again.net))
        assert not list(tmp_path.iterdir())

    def test_other_corrections_do_not_go_on_from_there(self, case, make_model, tmp_path):
        def crash(event):
            if event["step"] == 2:
                raise Crash

        with pytest.raises(Crash):
            fine_tune(make_model(), [case(1)], steps=4, folder=tmp_path, on_step=crash)
        steps = []
        fine_tune(make_model(), [case(2)], steps=2, folder=tmp_path, on_step=lambda event: steps.append(event["step"]))
        assert steps == [1, 2]

    def test_stopped_keeps_what_there_is(self, case, make_model):
        control, steps = Control(), []

        def stop(event):
            steps.append(event["step"])
            if event["step"] == 3:
                control.stop()

        learnt = fine_tune(make_model(), [case()], steps=50, cancel=control, on_step=stop)
        assert steps == [1, 2, 3]
        assert "in 3 steps" in learnt.card.notes[0]

    def test_paused_waits_until_it_may_go_on(self, case, make_model):
        control, steps, timer = Control(), [], []

        def pause(event):
            steps.append(event["step"])
            if event["step"] == 2:
                control.pause()
                timer.append(threading.Timer(0.2, lambda: (steps.append("on"), control.go_on())))
                timer[0].start()

        fine_tune(make_model(), [case()], steps=4, cancel=control, on_step=pause)
        assert steps == [1, 2, "on", 3, 4]

    def test_cancelled_while_paused_stores_nothing(self, case, make_model, tmp_path):
        control, known = Control(), list_models()

        def pause(event):
            control.pause()
            threading.Timer(0.05, control.set).start()

        with pytest.raises(Cancelled):
            fine_tune(make_model(), [case()], steps=4, cancel=control, on_step=pause, folder=tmp_path)
        assert list_models() == known
        assert not list(tmp_path.iterdir())

    def test_minutes_become_steps(self, case, make_model):
        events = []
        fine_tune(make_model(), [case()], minutes=0.02, on_step=events.append, cancel=Cancel())
        assert events[-1]["step"] == events[-1]["steps"] >= 4
