"""Predicting on other computers: real scheduler and worker processes on this one, and what happens when they die."""

from __future__ import annotations

import pickle
import signal
import socket
import threading
import time

import numpy as np
import pytest
import torch

from napari_medt.core import AmbiguousImage, Cancel, Cancelled, Choice, Geometry, MedtError, Volume
from napari_medt.engine import predict
from napari_medt.engine.parcels import ModelParcel, Parcel, cut, needed_box, windows_in
from napari_medt.engine.running import set_up
from napari_medt.nets import create_net
from napari_medt.zoo import Intensity, Model, ModelCard
from tests.dask_processes import cluster_of, free_port

pytest.importorskip("distributed")
from napari_medt.engine import cluster as cluster_module
from napari_medt.engine import scheduler
from napari_medt.engine.cluster import Cluster
from napari_medt.engine.scheduler import ClusterError


def make_model(dims: int, **changes) -> Model:
    """Return a small network that finds two things in about equal parts."""
    torch.manual_seed(3)
    values = {
        "name": "small",
        "title": "Small",
        "architecture": "unet",
        "net_options": {"spatial_dims": dims, "channels": [4, 8], "num_res_units": 1},
        "classes": ("background", "thing"),
        "channels": "grey",
        "spatial_dims": dims,
        "window": (32,) * dims,
        "intensity": Intensity(kind="percentile"),
    }
    card = ModelCard(**values | changes)
    net = create_net(card.architecture, **card.net_options).eval()
    with torch.no_grad():
        last = [m for m in net.modules() if getattr(m, "out_channels", 0) == 2 and hasattr(m, "bias")][-1]
        found = net(torch.rand(4, 1, *card.window))
        last.bias[1] -= (found[:, 1] - found[:, 0]).median()
    return Model(card, net, torch.device("cpu"))


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("monai")
    return make_model(3)


@pytest.fixture(scope="module")
def flat_model():
    pytest.importorskip("monai")
    return make_model(2)


def blobs(shape, seed: int = 0) -> np.ndarray:
    """Return a smooth random scan, so that there is something to segment."""
    from scipy.ndimage import gaussian_filter

    return (gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2) * 1e4).astype(np.int16)


# ------------------------------------------------------------------------------------------------------------- parcels


def scan(shape=(40, 60, 50), *, spacing=(2.0, 1.0, 1.0)) -> Volume:
    return Volume(blobs(shape)[None], Geometry.from_spacing(spacing, units="mm"))


CASES = {
    "scan": ({}, {}),
    "scan in one region": ({"roi": (slice(5, 38), slice(None), slice(9, 30))}, {}),
    "scan of another spacing": ({}, {"spacing": (1.5, 1.5, 1.5)}),
}


@pytest.mark.parametrize("name", CASES)
def test_parcels_together_are_the_whole_and_know_only_what_they_need(model, name):
    options, changes = CASES[name]
    card = model.card.model_copy(update=changes)
    model = Model(card, model.net, model.device)
    task = set_up(model, scan(), **options)
    boxes = cut(task, 6)
    assert len(boxes) >= 4
    counted = np.zeros(task.volume.spatial_shape, int)
    whole = predict(model, scan(), uncertainty=True, **options)
    task = set_up(model, scan(), uncertainty=True, **options)
    for box in boxes:
        parcel = pickle.loads(pickle.dumps(Parcel.of(task, box)))
        assert parcel.prepared.array._array.shape[1:] == tuple(p.stop - p.start for p in needed_box(task, box))
        found, notes = parcel.open(model, lambda *_: None, Cancel())
        assert notes == ()
        np.testing.assert_array_equal(found.labels, whole.labels[box])
        np.testing.assert_allclose(found.uncertainty, whole.uncertainty[box], atol=2e-3)
        counted[box] += 1
    inside = tuple(options.get("roi", (slice(None),) * 3))
    assert (counted[inside] == 1).all()
    assert counted.sum() == counted[inside].sum()
    assert 0.1 < whole.labels[inside].mean() < 0.9


def test_cuts_cost_few_windows(model, flat_model):
    whole = set_up(model, np.zeros((128, 64, 64), np.uint8) + np.arange(64, dtype=np.uint8))
    windows = sum(windows_in(whole, box) for box in cut(whole, 2))
    alone = windows_in(whole, whole.box)
    assert alone == 7 * 3 * 3
    assert windows == 8 * 3 * 3, "one border, across the longest axis, where a window begins"
    assert {windows_in(whole, box) for box in cut(whole, 2)} == {windows // 2}
    slices = set_up(flat_model, np.zeros((40, 64, 64), np.uint8) + np.arange(64, dtype=np.uint8))
    boxes = cut(slices, 3)
    assert len(boxes) > 6
    assert sum(windows_in(slices, box) for box in boxes) == windows_in(slices, slices.box)


def test_what_travels_is_small(model):
    volume = Volume(np.zeros((1, 700, 700, 700), np.uint8), Geometry.from_spacing((1.0,) * 3))
    task = set_up(model, volume)
    largest = max(np.prod([part.stop - part.start for part in needed_box(task, box)]) for box in cut(task, 1))
    assert largest <= 2**25


def test_bundled_models_stay_and_others_travel_with_every_weight(model):
    from napari_medt import load_model

    bundled = load_model("medt-nuclei", device="cpu")
    assert ModelParcel.of(bundled).nbytes == 0
    with torch.no_grad():
        next(bundled.net.parameters()).mul_(1.001)
    assert ModelParcel.of(bundled).nbytes > 100_000
    arrived = pickle.loads(pickle.dumps(ModelParcel.of(model))).work(lambda there: there)
    for name, value in model.net.state_dict().items():
        assert torch.equal(value, arrived.net.state_dict()[name]), name


def test_errors_travel_whole():
    error = pickle.loads(pickle.dumps(MedtError("It failed", remedy="try again")))
    assert (str(error), error.remedy) == ("It failed; try again.", "try again")
    asked = pickle.loads(pickle.dumps(AmbiguousImage("Which", [Choice("a", "one")])))
    assert (str(asked), asked.choices) == ("Which; choose a (one).", (Choice("a", "one"),))
    assert str(pickle.loads(pickle.dumps(Cancelled()))) == str(Cancelled())


# ------------------------------------------------------------------------------------------------------------- cluster


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    with cluster_of(2, tmp_path_factory.mktemp("cluster")) as processes:
        yield processes


class Slabs:
    """Takes labels part by part and remembers in which order."""

    def __init__(self, shape) -> None:
        self.array, self.begins, self.discarded = np.zeros(shape, np.uint8), [], False

    def __setitem__(self, where, values) -> None:
        self.array[where] = values
        self.begins.append(where[0].start)

    def discard(self) -> None:
        self.discarded = True


def test_labels_are_those_of_one_computer(two_workers, model, flat_model):
    da = pytest.importorskip("dask.array")
    volume, told = scan(), []
    lazy = Volume(da.from_array(volume.array, chunks=(1, 16, 32, 32)), volume.geometry)
    with Cluster(two_workers.address) as cluster:
        assert cluster.workers == 2
        assert cluster.notes == ()
        slabs = Slabs(volume.spatial_shape)
        report = lambda done, total, message="": told.append((done, total, message))  # noqa: E731
        options = {"uncertainty": "margin", "probabilities": True}
        here = predict(model, volume, **options)
        there = predict(model, lazy, compute=cluster, into=slabs, progress=report, **options)
        np.testing.assert_array_equal(slabs.array, here.labels)
        assert slabs.begins == sorted(slabs.begins)
        np.testing.assert_allclose(there.uncertainty, here.uncertainty, atol=2e-3)
        np.testing.assert_allclose(there.probabilities, here.probabilities, atol=2e-3)
        assert (there.notes, there.model, there.geometry) == (here.notes, here.model, here.geometry)
        done, totals = [d for d, *_ in told], {total for _, total, _ in told if total > 1}
        assert len(totals) == 1
        assert done[-1] == totals.pop()
        assert any("on 2 other processes" in message for *_, message in told)

        here = predict(flat_model, volume, plane="coronal", flips=True)
        there = predict(flat_model, volume, plane="coronal", flips=True, compute=cluster)
        np.testing.assert_array_equal(there.labels, here.labels)
        assert 0.1 < here.labels.mean() < 0.9

        other = Model(
            model.card.model_copy(update={"spacing": (1.5,) * 3, "crop": "foreground"}), model.net, model.device
        )
        np.testing.assert_array_equal(predict(other, volume, compute=cluster).labels, predict(other, volume).labels)


def test_errors_of_the_image_are_those_of_one_computer(two_workers, flat_model, model):
    from napari_medt.core import BadImage

    with pytest.raises(BadImage, match="2D image"):
        predict(model, np.zeros((64, 64), np.uint8), compute=two_workers.address)


def test_cancel_stops_the_workers_too(two_workers, flat_model):
    cancel, slabs = Cancel(), Slabs((400, 96, 96))

    def stop(done, total, message=""):
        if done:
            cancel.set()

    image = np.broadcast_to(blobs((96, 96)), (400, 96, 96))
    began = time.monotonic()
    with Cluster(two_workers.address) as cluster:
        with pytest.raises(Cancelled):
            predict(flat_model, image, flips=True, compute=cluster, into=slabs, progress=stop, cancel=cancel)
        assert slabs.discarded
        idle = threading.Event()
        while not idle.wait(0.1):
            if not any(cluster.client.processing().values()):
                break
            assert time.monotonic() - began < 60
        # The workers take the next image at once.
        small = blobs((2, 40, 40))
        np.testing.assert_array_equal(
            predict(flat_model, small, compute=cluster).labels, predict(flat_model, small).labels
        )


def test_killed_worker_changes_no_voxel(flat_model, tmp_path):
    """One of two worker processes gets SIGKILL in mid-run; the other does its share."""
    image = blobs((160, 64, 64))
    killed = []
    with cluster_of(2, tmp_path) as processes, Cluster(processes.address) as cluster:

        def kill(done, total, message=""):
            if done > total / 8 and not killed:
                killed.append((done, total))
                processes.workers[0].send_signal(signal.SIGKILL)

        there = predict(flat_model, image, uncertainty=True, compute=cluster, progress=kill)
        assert killed
        assert killed[0][0] < killed[0][1] / 2, "it was in mid-run"
        assert processes.workers[0].wait(5) == -signal.SIGKILL
        here = predict(flat_model, image, uncertainty=True)
        np.testing.assert_array_equal(there.labels, here.labels)
        np.testing.assert_allclose(there.uncertainty, here.uncertainty, atol=2e-3)

        # Without any worker the run is given up, with one sentence.
        processes.workers[1].kill()
        processes.workers[1].wait()
        with pytest.raises(ClusterError, match="no workers"):
            Cluster(processes.address)


@pytest.mark.slow
def test_workers_that_all_die_and_one_that_comes(flat_model, tmp_path, monkeypatch):
    image, lost = blobs((60, 64, 64)), []
    monkeypatch.setattr(cluster_module, "AGAIN", 0.3)
    with cluster_of(1, tmp_path) as processes, Cluster(processes.address) as cluster:

        def kill(done, total, message=""):
            if done and not lost:
                lost.append(processes.workers[0])
                lost[0].kill()
                processes.add_worker()

        there = predict(flat_model, image, compute=cluster, progress=kill)
        np.testing.assert_array_equal(there.labels, predict(flat_model, image).labels)
        monkeypatch.setattr(cluster_module, "ALONE", 1.0)
        lost.clear()
        monkeypatch.setattr(processes, "add_worker", lambda: None)
        processes.workers[0] = processes.workers[1]
        with pytest.raises(ClusterError, match="All workers are gone"):
            predict(flat_model, image, compute=cluster, progress=kill)


def test_scheduler_that_does_not_answer_is_one_sentence_in_seconds(flat_model, monkeypatch):
    monkeypatch.setattr(scheduler, "PATIENCE", 1.5)
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    for address in (
        f"tcp://127.0.0.1:{free_port()}",
        f"tcp://127.0.0.1:{silent.getsockname()[1]}",
        "nonsense",
        "a:b:c",
    ):
        began = time.monotonic()
        with pytest.raises(ClusterError, match=r"does not answer; check the address") as caught:
            predict(flat_model, np.zeros((40, 40), np.uint8), compute=address)
        assert time.monotonic() - began < 10
        assert address in str(caught.value)
    silent.close()


@pytest.mark.slow
def test_scheduler_that_goes_away(flat_model, tmp_path, monkeypatch):
    gone = []
    with cluster_of(1, tmp_path) as processes:

        def kill(done, total, message=""):
            if done and not gone:
                gone.append(processes._scheduler.kill())

        with pytest.raises(ClusterError, match="connection to the scheduler was lost"):
            predict(flat_model, blobs((200, 64, 64)), compute=processes.address, progress=kill)


def test_workers_with_other_versions_are_told(two_workers, monkeypatch):
    from distributed import Client

    real = Client.get_versions

    def pretend(self, **options):
        found = real(self, **options)
        place = next(iter(found["workers"]))
        found["workers"][place]["packages"] = found["workers"][place]["packages"] | changed
        return found

    monkeypatch.setattr(Client, "get_versions", pretend)
    changed: dict[str, str | None] = {"torch": "1.0"}
    with Cluster(two_workers.address) as cluster:
        (note,) = cluster.notes
        assert "torch 1.0" in note
    for version, sentence in (("0.0.1", "has napari-medt 0.0.1"), (None, "no napari-medt")):
        changed = {"napari-medt": version}
        with pytest.raises(ClusterError, match=sentence):
            Cluster(two_workers.address)
