"""Peak memory is that of a slab, whatever the height of the volume and the number of classes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, resource, sys
import numpy as np, psutil, torch
from napari_medt.core import Volume
from napari_medt.engine import predict
from napari_medt.zoo.card import Intensity, ModelCard
from napari_medt.zoo.model import Model

class Cheap(torch.nn.Module):
    def forward(self, x):
        return x * torch.linspace(-3, 3, 14).view(1, -1, 1, 1, 1)

shape, window = json.loads(sys.argv[1]), tuple(json.loads(sys.argv[2]))
card = ModelCard(name="cheap", title="Cheap", architecture="none", net_options={}, channels="grey", spatial_dims=3,
                 classes=tuple(f"class {n}" for n in range(14)), window=window, intensity=Intensity(kind="none"))
model = Model(card, Cheap(), torch.device("cpu"))
scan = np.random.default_rng(0).integers(-1, 2, shape, dtype=np.int16)
predict(model, scan[:9, :9, :9])
before = psutil.Process().memory_info().rss
found = predict(model, Volume.from_array(scan, rgb=False))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
assert ((found.labels == 13) == (scan == 1)).all()
print((peak - before) / 1e6)
"""


def megabytes(shape, window):
    """Peak beyond what was there before, in a process of its own."""
    pytest.importorskip("resource", reason="peak memory is asked of Unix")
    command = [sys.executable, "-c", SCRIPT, json.dumps(shape), json.dumps(window)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1500)
    return float(run.stdout)


def test_peak_stays_as_a_volume_grows_higher():
    low, high = (megabytes((height, 128, 128), (32, 32, 32)) for height in (64, 192))
    added = 128 * 128 * 128 / 1e6  # voxels, in millions
    assert high - low < added * (1 + 10)  # labels, and some leeway; all classes as float32 would be 56 bytes a voxel


@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("window", [(64, 128, 128), (96, 96, 96)])
def test_fourteen_classes_of_a_whole_scan(window):
    assert megabytes((400, 512, 512), window) < 1500
