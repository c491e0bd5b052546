"""When memory runs out, ever less is tried, in the order of what it costs, and every step is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_medt.core import OutOfMemory
from napari_medt.engine import predict
from napari_medt.engine.ladder import Effort, steps_down
from napari_medt.zoo.model import Model

GPU = Effort(torch.device("cuda"), 2, (64, 64, 64), stitch_there=True)


def test_every_step_takes_less_and_says_so():
    steps = list(steps_down(GPU, smallest_window=32))
    assert [(e.device.type, e.stitch_device.type, e.batch, e.window[0]) for e, _ in steps] == [
        ("cuda", "cpu", 2, 64),
        ("cuda", "cpu", 1, 64),
        ("cpu", "cpu", 1, 64),
        ("cpu", "cpu", 1, 32),
    ]
    assert [sentence for _, sentence in steps] == [
        "The memory of the GPU ran short, so the processor put the windows together.",
        "Memory ran short, so one window at a time went through the network.",
        "The memory of the GPU was too small, so the processor did the work.",
        "Memory ran short, so windows of 32 x 32 x 32 pixels were used; the mask may be less exact.",
    ]


class FailsFirst(torch.nn.Module):
    """Raises out-of-memory so many times, then works."""

    def __init__(self, times):
        super().__init__()
        self.left, self.seen = times, []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        if self.left:
            self.left -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.cat((-x, x), 1)


@pytest.mark.parametrize("times", range(5))
def test_a_volume_survives_any_number_of_failures_up_to_the_last_step(make_card, rng, times):
    card = make_card(net_options={}, channels="grey", spatial_dims=3, window=(64, 64, 64), intensity={"kind": "none"})
    scan = rng.choice([-1, 1], (40, 70, 20)).astype(np.int16)
    model = Model(card, FailsFirst(times), torch.device("cpu"))
    steps = ["so 2 windows", "so one window", "so windows of 32 x 32 x 32"]
    if times > len(steps):
        with pytest.raises(OutOfMemory, match="close other programs"):
            predict(model, scan, batch=4)
        return
    found = predict(model, scan, batch=4)
    np.testing.assert_array_equal(found.labels, scan > 0)
    assert [step in note for step, note in zip(steps, found.notes, strict=False)] == [True] * times
    assert len(found.notes) == times
