"""Prediction on any size, blended without seams, within memory, cancellable, with sentences for what goes wrong."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_medt.core import BadImage, Cancel, Cancelled, Geometry, OutOfMemory, Volume
from napari_medt.engine import predict
from napari_medt.engine.ladder import Effort, is_out_of_memory, steps_down
from napari_medt.engine.running import default_batch
from napari_medt.engine.windows import blend_weights
from napari_medt.zoo.model import Model


@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 200), (32, 32), (33, 31), (100, 77), (90, 70, 3), (50, 60, 4), (4, 40, 50)]
)
def test_any_shape_gets_a_mask_of_its_own_shape(threshold, rng, shape):
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    found = predict(threshold, image, uncertainty=True, probabilities=True)
    rgb = len(shape) == 3 and shape[-1] in (3, 4)
    spatial = shape[:2] if rgb else shape
    assert found.labels.shape == found.uncertainty.shape == spatial
    assert found.probabilities.shape == (2, *spatial)
    assert found.labels.dtype == np.uint8
    if min(spatial) > 1:
        grey = image[..., :3].mean(-1) if rgb else image.astype(float)
        used = image[..., :3] if rgb else image
        scaled = (grey - used.min()) / (int(used.max()) - int(used.min()))
        sure = abs(scaled - 0.5) > 1e-3
        np.testing.assert_array_equal(found.labels[sure], scaled[sure] > 0.5)


def test_one_window_is_the_plain_forward_pass(real, rng):
    image = rng.random((32, 32, 3), dtype=np.float32)
    image[0, 0], image[0, 1] = 0, 1  # so that percentiles 0 and 100 change nothing
    found = predict(real, image, probabilities=True)
    with torch.inference_mode():
        expected = real.net(torch.from_numpy(image.transpose(2, 0, 1))[None])[0].softmax(0).numpy()
    np.testing.assert_allclose(found.probabilities, expected, atol=2e-3)


def test_result_equals_that_of_monai(real, rng):
    inferers = pytest.importorskip("monai.inferers", reason="needs MONAI, installed with napari-medt[train]")
    image = rng.random((90, 77, 3), dtype=np.float32)
    image[0, 0], image[0, 1] = 0, 1
    found = predict(real, image, probabilities=True)
    expected = inferers.sliding_window_inference(
        torch.from_numpy(image.transpose(2, 0, 1))[None],
        real.card.window,
        4,
        lambda x: real.net(x).softmax(1).detach(),
        overlap=0.5,
        # MONAI's own Gaussian is cut off at a thousandth, which near the borders of the image makes seams; ours is not.
        roi_weight_map=torch.from_numpy(blend_weights(real.card.window)),
    )[0]
    assert np.abs(found.probabilities.astype(np.float32) - expected.numpy()).max() < 2e-3
    assert (found.labels == expected.argmax(0).numpy()).mean() > 0.999


def test_blending_as_monai_does_it_gives_the_same_mask(real, rng):
    inferers = pytest.importorskip("monai.inferers", reason="needs MONAI, installed with napari-medt[train]")
    image = rng.random((90, 77, 3), dtype=np.float32)
    image[0, 0], image[0, 1] = 0, 1
    found = predict(real, image)
    with torch.inference_mode():
        tensor = torch.from_numpy(image.transpose(2, 0, 1))[None]
        expected = inferers.sliding_window_inference(
            tensor, real.card.window, 4, lambda x: real.net(x).softmax(1), overlap=0.5, mode="gaussian"
        )[0]
    assert 0.02 < found.labels.mean() < 0.98
    assert (found.labels == expected.argmax(0).numpy()).mean() > 0.99


def test_batch_size_does_not_change_the_result(real, rng):
    image = rng.random((70, 60))
    results = [predict(real, image, batch=batch, probabilities=True) for batch in (1, 3, 8)]
    for other in results[1:]:
        # Sums are taken in another order, so the last digits differ, and a pixel at one half may tip over.
        assert (results[0].labels == other.labels).mean() > 0.995
        np.testing.assert_allclose(results[0].probabilities, other.probabilities, atol=1e-2)


@pytest.mark.parametrize(
    ("device", "window", "batch"), [("cpu", 128, 4), ("cpu", 32, 4), ("cuda", 256, 4), ("mps", 512, 1)]
)
def test_larger_windows_go_in_smaller_batches(device, window, batch):
    assert default_batch(torch.device(device), (window, window)) == batch


def test_impossible_batch_is_refused(threshold):
    with pytest.raises(ValueError, match="batch must be at least 1, not 0"):
        predict(threshold, np.eye(9), batch=0)


def test_uncertainty_is_the_scaled_entropy(real, rng):
    found = predict(real, rng.random((80, 80)), probabilities=True, uncertainty=True)
    p = found.probabilities.astype(np.float64)
    entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(0) / np.log(2)
    np.testing.assert_allclose(found.uncertainty, entropy, atol=5e-3)
    assert found.uncertainty.min() >= 0
    assert found.uncertainty.max() <= 1


def test_geometry_classes_and_model_are_kept(threshold, rng):
    geometry = Geometry(np.array([[0.3, 0.1, 5], [0, 0.4, -2], [0, 0, 1]]), "um")
    found = predict(threshold, Volume.from_array(rng.random((40, 40)), geometry=geometry))
    assert found.geometry == geometry
    assert found.classes == ("background", "thing")
    assert found.model == "threshold@1"


def test_slices_of_a_scan_are_segmented_like_images_of_the_same_scale(threshold, rng):
    scan = rng.random((5, 40, 50))
    scan[:, 0, 0], scan[:, 0, 1] = 0, 1
    found = predict(threshold, scan).labels
    for z in range(5):
        np.testing.assert_array_equal(found[z], predict(threshold, scan[z]).labels)


def test_small_slices_share_a_batch(threshold, rng):
    scan = rng.random((6, 20, 20))
    found = predict(threshold, scan, batch=4, probabilities=True)
    assert [shape[0] for shape in threshold.net.seen] == [4, 2]
    scaled = (scan - scan.min()) / (scan.max() - scan.min())
    sure = abs(scaled - 0.5) > 1e-3
    np.testing.assert_array_equal(found.labels[sure], scaled[sure] > 0.5)


class ManyClasses(torch.nn.Module):
    def forward(self, x):
        return x[:, :1].repeat(1, 14, 1, 1)


def test_memory_does_not_grow_with_classes_times_image(make_card):
    classes = ("background", *(f"organ {number}" for number in range(13)))
    card = make_card(classes=classes, net_options={}, window=(128, 128))
    image = np.tile(np.arange(256, dtype=np.uint8), (2048, 4))
    tracemalloc.start()
    found = predict(Model(card, ManyClasses(), torch.device("cpu")), image, overlap=0.25)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.labels.shape == (2048, 1024)
    whole = 14 * image.size * 4  # all classes of the whole image as float32
    assert peak < 0.5 * whole


def test_progress_counts_to_the_end(threshold, rng):
    told = []
    predict(threshold, rng.random((100, 100)), batch=2, progress=lambda *step: told.append(step))
    assert [step[0] for step in told] == sorted(step[0] for step in told)
    assert told[-1][:2] == (told[0][1], told[0][1])
    assert len(told) > 10
    assert told[1][2] == f"Segmenting, 2 of {told[0][1]} windows are done"
    assert told[-1][2] == "Segmented"


def test_cancel_stops_at_the_next_batch(threshold, rng):
    cancel = Cancel()

    def stop_after_two(done, total, message):
        if done >= 2:
            cancel.set()

    with pytest.raises(Cancelled, match="nothing was changed"):
        predict(threshold, rng.random((200, 200)), batch=1, progress=stop_after_two, cancel=cancel)
    assert len(threshold.net.seen) == 3


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((0, 5)), "is empty"),
        (np.zeros((5, 5), complex), "type complex128, which are not grey or colour values"),
        (np.array([["a"]]), "which are not grey or colour values"),
        (np.zeros((2, 3, 4, 5)), "neither a 2D image nor a 3D scan"),
        (np.zeros(7), "neither a 2D image nor a 3D scan"),
        (np.full((5, 5), np.nan), "no number, only NaN or infinity"),
    ],
)
def test_what_is_no_image_gets_one_sentence(threshold, image, sentence):
    with pytest.raises(BadImage, match=sentence):
        predict(threshold, image)


class Starved(torch.nn.Module):
    """Runs out of memory until batch and window are small enough."""

    def __init__(self, inner, batch, edge, error):
        super().__init__()
        self.inner, self.batch, self.edge, self.error = inner, batch, edge, error

    def forward(self, x):
        if x.shape[0] > self.batch or x.shape[-1] > self.edge:
            raise self.error
        return self.inner(x)


MEMORY_ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("MPS backend out of memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=lambda e: type(e).__name__)
def test_memory_running_out_is_survived_and_said(threshold, rng, error):
    image = rng.random((100, 100))
    expected = predict(threshold, image).labels
    model = replace(threshold, net=Starved(threshold.net, 1, 32, error))
    found = predict(model, image)
    np.testing.assert_array_equal(found.labels, expected)
    assert found.notes[-1] == "Memory ran short, so one window at a time went through the network."


def test_every_step_down_is_told_while_it_is_taken(threshold, rng):
    told = []
    model = replace(threshold, net=Starved(threshold.net, 1, 32, MemoryError()))
    found = predict(model, rng.random((100, 100)), batch=4, progress=lambda *step: told.append(step[2]))
    assert [note in told for note in found.notes] == [True, True]
    assert told[-2].endswith("windows are done. " + found.notes[-1])


def test_smaller_windows_are_the_last_resort(threshold, make_card, rng):
    model = replace(threshold, card=make_card(window=(64, 64)), net=Starved(threshold.net, 1, 32, MemoryError()))
    image = rng.random((100, 100))
    found = predict(model, image)
    assert found.notes[-1] == "Memory ran short, so windows of 32 x 32 pixels were used; the mask may be less exact."
    np.testing.assert_array_equal(found.labels, predict(threshold, image).labels)


class OnAnotherDevice(torch.nn.Module):
    """Runs out of memory on every device but the processor, and remembers where it was put."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.places = inner, []

    def to(self, device):
        self.places.append(str(device))
        return self

    def forward(self, x):
        if x.device.type != "cpu":
            raise torch.OutOfMemoryError("out of memory")
        return self.inner(x)


@pytest.mark.parametrize("cancelled", [False, True])
def test_processor_helps_out_and_the_network_goes_back(threshold, rng, cancelled):
    image, cancel = rng.random((60, 60)), Cancel()
    model = replace(threshold, net=OnAnotherDevice(threshold.net), device=torch.device("meta"))

    def watch(done, total, message):
        if cancelled and done:
            cancel.set()

    if cancelled:
        with pytest.raises(Cancelled):
            predict(model, image, batch=1, progress=watch, cancel=cancel)
    else:
        found = predict(model, image, batch=1)
        assert found.notes == ("The memory of the GPU was too small, so the processor did the work.",)
        np.testing.assert_array_equal(found.labels, predict(threshold, image).labels)
    assert model.net.places == ["meta", "cpu", "meta"]


def test_no_memory_at_all_says_what_to_do(threshold, rng):
    model = replace(threshold, net=Starved(threshold.net, 0, 0, MemoryError()))
    with pytest.raises(
        OutOfMemory, match="not enough memory, even for one small window at a time; close other programs"
    ):
        predict(model, rng.random((100, 100)))


def test_other_errors_are_not_taken_for_missing_memory(threshold, rng):
    model = replace(threshold, net=Starved(threshold.net, 0, 0, RuntimeError("a mistake of ours")))
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        predict(model, rng.random((40, 40)))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_ladder_leaves_the_gpu_before_it_shrinks_windows():
    steps = list(steps_down(Effort(torch.device("cuda"), 4, (128, 128)), smallest_window=32))
    assert [(e.device.type, e.batch, e.window[0]) for e, _ in steps] == [
        ("cuda", 2, 128),
        ("cuda", 1, 128),
        ("cpu", 1, 128),
        ("cpu", 1, 64),
        ("cpu", 1, 32),
    ]
    assert steps[2][1] == "The memory of the GPU was too small, so the processor did the work."
