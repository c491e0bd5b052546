"""Learning from corrections: a mistake goes away, the old model stays, and what does not fit is refused in a sentence."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from napari_medt.core import BadTrainingData, Cancel, Cancelled, MedtError, Volume
from napari_medt.engine import predict
from napari_medt.measure import dice
from napari_medt.nets import create_net
from napari_medt.training import fine_tune
from napari_medt.training.optimise import refresh_norms
from napari_medt.zoo import Model, list_models, load_model, models_folder


@pytest.fixture
def taught(make_model, make_discs):
    """A model that knows bright discs."""
    cases = [(picture, (ids > 0).astype(np.uint8)) for picture, ids in (make_discs(seed) for seed in range(4))]
    model = make_model()
    batch = torch.from_numpy(np.stack([np.repeat(p[None] / 255, 3, axis=0) for p, _ in cases]).astype(np.float32))
    refresh_norms(model.net, [(batch, None)])
    return fine_tune(model, cases, steps=40, learning_rate=2e-2, batch=4)


def digest(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


class TestLearning:
    def test_a_systematic_mistake_goes_away(self, taught, make_discs):
        """Somebody wants the ground, not the discs."""
        picture, ids = make_discs(9)
        wanted = (ids == 0).astype(np.uint8)
        assert dice(predict(taught, picture).labels, ids) > 0.9
        learnt = fine_tune(taught, [(picture, wanted)], steps=60, learning_rate=2e-2)
        other, other_ids = make_discs(10)
        assert dice(predict(learnt, other).labels, other_ids == 0) > 0.9

    @pytest.mark.parametrize(
        ("architecture", "size"),
        [
            ("gated-axial-unet", 32),
            pytest.param("medt", 64, marks=pytest.mark.slow),
            pytest.param("logo", 64, marks=pytest.mark.slow),
        ],
    )
    def test_the_networks_of_the_family_learn_one_image(self, make_model, make_discs, architecture, size):
        """Trained a little in the ordinary way, they go on learning in few steps with their norms held still."""
        torch.manual_seed(0)
        picture, ids = make_discs(1, size=(size, size))
        image = torch.from_numpy(np.repeat(picture[None, None] / 255, 3, axis=1).astype(np.float32))
        images, masks = image.repeat(2, 1, 1, 1), torch.from_numpy((ids > 0).astype(np.int64))[None].repeat(2, 1, 1)
        net = create_net(architecture, img_size=size).train()
        optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
        for _ in range(12):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(images), masks).backward()
            optimiser.step()
        refresh_norms(net, [(seen, None) for seen in (images, images.flip(3), images.rot90(1, (2, 3)))])
        model = make_model(net, architecture=architecture, net_options={"img_size": size}, window=(size, size))
        losses = []
        fine_tune(model, [(picture, ids == 0)], steps=12, on_step=lambda event: losses.append(event["loss"]))
        assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:2])

    def test_the_same_seed_gives_the_same_version(self, taught, make_discs):
        cases = [(make_discs(1)[0], make_discs(1)[1] > 0)]
        one, two = (fine_tune(taught, cases, steps=3, seed=5) for _ in range(2))
        other = fine_tune(taught, cases, steps=3, seed=6)
        assert same(digest(one.net), digest(two.net))
        assert not same(digest(one.net), digest(other.net))

    def test_statistics_of_norms_stay(self, taught, make_discs):
        picture, ids = make_discs(1)
        learnt = fine_tune(taught, [(picture // 4, ids > 0)], steps=5)
        before, after = digest(taught.net), digest(learnt.net)
        running = [name for name in before if "running" in name or "tracked" in name]
        assert running
        assert all(torch.equal(before[name], after[name]) for name in running)
        assert not same(before, after)

    @pytest.mark.parametrize("size", [(8, 70), (5, 5), (32, 32), (1, 1)])
    def test_images_of_any_size(self, taught, make_discs, size):
        picture, ids = make_discs(1, size=(70, 70))
        case = picture[: size[0], : size[1]], (ids > 0)[: size[0], : size[1]]
        learnt = fine_tune(taught, [case], steps=2)
        assert predict(learnt, case[0]).labels.shape == size

    def test_volumes_colour_and_several_images(self, taught, make_discs):
        picture, ids = make_discs(1)
        mask = (ids > 0).astype(np.int32)
        cases = [(Volume.from_array(picture), mask), (np.stack([picture] * 3, -1), mask), (picture / 255.0, mask)]
        learnt = fine_tune(taught, cases, steps=2)
        assert "3 corrected images in 2 steps" in learnt.card.notes[0]

    def test_every_step_is_told(self, taught, make_discs):
        picture, ids = make_discs(1)
        events, seen = [], []
        fine_tune(
            taught, [(picture, ids > 0)], steps=4, on_step=events.append, progress=lambda *report: seen.append(report)
        )
        assert [event["step"] for event in events] == [1, 2, 3, 4]
        assert {event["steps"] for event in events} == {4}
        assert all(event["loss"] > 0 for event in events)
        assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
        assert seen[-1][:2] == (4, 4)


class TestOldAndNew:
    def test_the_old_model_is_untouched_and_the_new_one_stored_beside_it(self, taught, make_discs):
        picture, ids = make_discs(1)
        before, card = digest(taught.net), taught.card
        stored = {path: path.read_bytes() for path in models_folder().rglob("*") if path.is_file()}
        learnt = fine_tune(taught, [(picture, ids == 0)], steps=3)
        assert same(before, digest(taught.net))
        assert taught.card is card
        assert all(path.read_bytes() == content for path, content in stored.items())
        assert learnt.card.version == card.version + 1
        assert learnt.card.base == f"{card.key} {card.sha256}"
        assert learnt.card.scores == ()
        again = load_model(learnt.card.key, device="cpu")
        assert same(digest(learnt.net), digest(again.net))
        assert not learnt.net.training

    def test_cancelled_stores_nothing(self, taught, make_discs):
        picture, ids = make_discs(1)
        before, known, cancel = digest(taught.net), list_models(), Cancel()
        with pytest.raises(Cancelled):
            fine_tune(
                taught,
                [(picture, ids == 0)],
                steps=10,
                cancel=cancel,
                on_step=lambda event: cancel.set() if event["step"] == 3 else None,
            )
        assert list_models() == known
        assert same(before, digest(taught.net))

    def test_cancelled_in_the_last_step_stores_nothing(self, taught, make_discs):
        picture, ids = make_discs(1)
        known, cancel = list_models(), Cancel()
        with pytest.raises(Cancelled):
            fine_tune(taught, [(picture, ids > 0)], steps=1, cancel=cancel, on_step=lambda event: cancel.set())
        assert list_models() == known


class TestRefused:
    @pytest.fixture
    def model(self, make_model):
        return make_model()

    def test_nothing_to_learn_from(self, model):
        with pytest.raises(BadTrainingData, match=r"no corrected mask to learn from; correct a mask first\."):
            fine_tune(model, [])

    def test_a_mask_of_another_shape(self, model):
        with pytest.raises(BadTrainingData, match=r"mask has \(3, 4\) pixels but the image has \(4, 3\)"):
            fine_tune(model, [(np.zeros((4, 3), np.uint8), np.zeros((3, 4), np.uint8))])

    @pytest.mark.parametrize(
        ("mask", "sentence"),
        [
            (np.full((4, 4), 2, np.uint8), r"holds the value 2, but Discs knows only 0 background, 1 disc"),
            (np.full((4, 4), -1, np.int16), r"holds the value -1, but Discs knows only"),
            (np.full((4, 4), 0.5), r"holds fractions"),
            (np.full((4, 4), np.nan), r"holds fractions"),
        ],
    )
    def test_labels_the_model_does_not_know(self, model, mask, sentence):
        with pytest.raises(BadTrainingData, match=sentence):
            fine_tune(model, [(np.zeros((4, 4), np.uint8), mask)])

    def test_whole_numbers_in_a_float_mask_are_labels(self, model):
        mask = np.eye(4)
        assert fine_tune(model, [(np.zeros((4, 4), np.uint8), mask)], steps=1).card.version == 2

    def test_a_scan(self, model):
        with pytest.raises(BadTrainingData, match="learns from 2D images; give single slices"):
            fine_tune(model, [(np.zeros((5, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8))])

    @pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 1, "batch": 0}, {"steps": 1, "learning_rate": 0.0}])
    def test_settings_that_teach_nothing(self, model, options):
        with pytest.raises(BadTrainingData):
            fine_tune(model, [(np.zeros((4, 4), np.uint8), np.eye(4, dtype=np.uint8))], **options)

    def test_a_learning_rate_that_blows_up(self, taught, make_discs):
        picture, ids = make_discs(1)
        known = list_models()
        with pytest.raises(MedtError, match="smaller learning rate"):
            fine_tune(taught, [(picture, ids > 0)], steps=30, learning_rate=1e30)
        assert list_models() == known

    def test_an_empty_mask_is_learnt_from_with_a_note(self, taught, make_discs):
        picture, _ = make_discs(1)
        learnt = fine_tune(taught, [(picture, np.zeros(picture.shape, np.uint8))], steps=30, learning_rate=1e-2)
        assert any("nothing to find" in note for note in learnt.card.notes)
        assert predict(learnt, picture).labels.mean() < 0.02


def test_a_copy_is_trained_on_the_models_device(make_model, make_discs):
    """The net that learns is another object; the one in use is never in training mode."""
    model = make_model()
    modes = []
    model.net.register_forward_pre_hook(lambda *_: modes.append("used"))
    holder = Model(model.card, copy.deepcopy(model.net), model.device)
    picture, ids = make_discs(1)
    fine_tune(holder, [(picture, ids > 0)], steps=1, on_step=lambda _: modes.append(holder.net.training))
    assert False in modes
    assert True not in modes


def test_a_model_of_another_spacing_learns_from_the_same_places(make_discs):
    """Image and mask come to the model's grid together."""
    from napari_medt.core import Geometry
    from napari_medt.training.corrections import CLASSES, Correction, to_corrected
    from napari_medt.zoo import Intensity, ModelCard

    card = ModelCard(
        name="coarse", title="Coarse", architecture="axial-unet", net_options={"img_size": 32}, channels="rgb",
        classes=("background", "disc"), window=(32, 32), intensity=Intensity(kind="unit"), spacing=(2.0, 2.0),
    )  # fmt: skip
    picture, ids = make_discs(3, size=(96, 80))
    volume = Volume.from_array(picture, geometry=Geometry.from_spacing((1, 1), units="mm"))
    sample = to_corrected(Correction(volume, ids > 0), card, name="a")
    image, mask = sample.image.astype(np.float32), sample.labels & CLASSES
    assert image.shape[1:] == mask.shape == (48, 40)
    assert image[0][mask > 0].mean() > 2 * image[0][mask == 0].mean()
