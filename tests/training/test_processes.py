"""Killed, a run goes on as if nothing had been; shared by two processes, it learns what one would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import torch
torch.set_num_threads(1)
from napari_medt.training import loop
from napari_medt.training.data import find_data, load_samples
from napari_medt.training.optimise import launch
from napari_medt.training.recipe import read_recipe

recipe_file, data, out = map(Path, sys.argv[1:4])
loop.CHECKPOINT_EVERY = 3
recipe = read_recipe(recipe_file)
images = find_data(recipe, data, beside=recipe_file.parent)
sides = [load_samples(images, side, recipe) for side in ("train", "validation")]
run = loop.Run(recipe, *sides, folder=out, resume=True, fabric=launch("cpu"), workers=int(sys.argv[4]))
if sys.argv[5] == "gradients":
    run._one_step(next(run._batches()))
    found = {{name: parameter.grad for name, parameter in run.net.named_parameters()}}
else:
    run.train(progress=lambda done, total, message="": print(done, flush=True))
    found = run.net.state_dict()
if run._fabric.is_global_zero:
    torch.save(found, out / "end.pt")
"""


@pytest.fixture
def start(recipe_file, data, tmp_path):
    """Start a run of the recipe, as small as can be, in processes of its own."""
    text = recipe_file.read_text().replace('architecture = "small"', 'architecture = "unet"')
    text = text.replace("num_classes = 2 }", "num_classes = 2, channels = [4, 8] }")
    recipe_file.write_text(text.replace("steps = 30", "steps = 9").replace("steps = 50", "steps = 15"))
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parents[2])))

    def begin(name, *, processes=1, workers=0, what="weights"):
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *(launcher if processes > 1 else []), str(script), str(recipe_file), str(data)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*command, str(tmp_path / name), str(workers), what], stdout=subprocess.PIPE, text=True, env=environment
        )

    return begin


def ended(process, folder):
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    return torch.load(folder / "end.pt", weights_only=True)


def test_a_killed_run_goes_on_to_the_same_weights_bit_for_bit(start, tmp_path):
    whole = start("whole")
    killed = start("killed")
    for line in killed.stdout:  # somewhere after a checkpoint, not at one
        if line.strip() == "14":
            break
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    time.sleep(0.1)
    assert torch.load(tmp_path / "killed" / "last.pt", weights_only=True)["step"] in (12, 14, 15)
    resumed, uninterrupted = ended(start("killed", workers=1), tmp_path / "killed"), ended(whole, tmp_path / "whole")
    assert all(torch.equal(value, uninterrupted[name]) for name, value in resumed.items())
    table, other = ((tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("killed", "whole"))
    without_time = [[row.split(",")[:1] + row.split(",")[2:] for row in rows] for rows in (table, other)]
    assert without_time[0] == without_time[1]


def test_the_gradients_of_two_processes_are_those_of_one(start, tmp_path):
    """Each has half of the batch; Dice is that of the whole batch."""
    alone, together = start("alone", what="gradients"), start("together", processes=2, what="gradients")
    one, two = ended(alone, tmp_path / "alone"), ended(together, tmp_path / "together")
    largest = max(gradient.abs().max() for gradient in one.values())
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, rtol=1e-4, atol=1e-6 * float(largest))
