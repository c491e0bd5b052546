"""Weight files: float16 where it is harmless, whole or not at all, never run, and one sentence for each kind of damage."""

from __future__ import annotations

import errno
import os
import pickle
import random
import threading
from pathlib import Path

import pytest
import torch

from napari_medt.core import BadWeights, StorageError
from napari_medt.zoo import load_model
from napari_medt.zoo.weights import digest, dump_state, parse_state, parse_state_dict, read_state_dict, write_folder


def round_trip(state, **options):
    return parse_state(dump_state(state, **options), where="weights")


def test_half_rounds_floats_and_keeps_counters():
    state = {"weight": torch.randn(50, 50), "counter": torch.tensor(2**40 + 1), "empty": torch.zeros(0)}
    stored = round_trip(state, half=True)
    assert stored["weight"].dtype == torch.float32
    assert torch.equal(stored["weight"], state["weight"].half().float())
    assert stored["counter"].dtype == torch.int64
    assert stored["counter"] == 2**40 + 1
    assert stored["empty"].shape == (0,)
    assert len(dump_state(state, half=True)) < 0.6 * len(dump_state(state, half=False))


@pytest.mark.parametrize(
    ("values", "kept"),
    [([70000.0, 1.0], True), ([65504.0, 1.0], False), ([1e-7, 2e-7], True), ([1e-7, 1.0], False), ([0.0, 0.0], False)],
    ids=["overflow", "largest", "all tiny", "one tiny", "zeros"],
)
def test_tensor_that_float16_holds_badly_stays_float32(values, kept):
    state = {"weight": torch.tensor(values), "other": torch.full((2,), 1 / 3)}
    stored = round_trip(state, half=True)
    assert torch.equal(stored["weight"], state["weight"]) == (kept or values in ([0.0, 0.0], [65504.0, 1.0]))
    assert torch.equal(stored["other"], state["other"].half().float())
    assert torch.isfinite(stored["weight"]).all()


def test_without_half_nothing_changes():
    state = {"weight": torch.randn(100), "big": torch.tensor([1e30])}
    assert all(torch.equal(value, state[name]) for name, value in round_trip(state, half=False).items())


def test_weights_that_share_memory_or_are_strided_are_stored():
    matrix = torch.randn(4, 6)
    state = {"a": matrix, "b": matrix, "c": matrix.T, "d": matrix[:, ::2]}
    assert all(torch.equal(value, state[name]) for name, value in round_trip(state, half=False).items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_stored(value):
    with pytest.raises(
        BadWeights, match="The weights 'gate' hold NaN or infinity, so they were not saved; train again"
    ):
        dump_state({"gate": torch.tensor([1.0, value])}, half=True)


class Harmful:
    def __reduce__(self):
        return (Path("harmed").touch, ())


def evil_files():
    yield "zip.pth", lambda path: torch.save({"weight": Harmful()}, path)
    yield "legacy.pt", lambda path: torch.save({"weight": Harmful()}, path, _use_new_zipfile_serialization=False)
    for protocol in (0, 2, 5):
        yield f"plain{protocol}.pth", lambda path, p=protocol: path.write_bytes(pickle.dumps(Harmful(), protocol=p))
    yield "network.pth", lambda path: torch.save(torch.nn.Linear(2, 2), path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "write"), list(evil_files()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch, name, write):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name)
    with pytest.raises(BadWeights) as caught:
        load_model(tmp_path / name)
    assert not (tmp_path / "harmed").exists()
    assert str(caught.value).startswith(f"{name} holds Python code or objects")
    assert str(caught.value).endswith(
        "which could harm this computer; it was not opened; ask its author for a plain state dict or a safetensors file."
    )


def test_refused_object_is_named(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "network.pth")
    with pytest.raises(BadWeights, match=r"objects \(torch.nn.modules.linear.Linear\) beside weights"):
        read_state_dict(tmp_path / "network.pth")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; get the file again"),
        (b"hello", "is damaged or is not"),
        (b"PK\x03\x04 broken", "is damaged or is not"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "is damaged or is not"),
        (bytes(200), "is damaged or is not"),
    ],
    ids=["empty", "text", "zip", "png", "zeros"],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_file_that_is_no_checkpoint_gets_one_sentence(tmp_path, content, sentence, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(BadWeights, match=sentence):
        load_model(path)


def test_file_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(BadWeights, match=r"gone\.pth cannot be read: No such file or directory; check the path"):
        read_state_dict(tmp_path / "gone.pth")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1, 2], "holds a list, not a state dict; save net.state_dict"),
        (torch.zeros(3), "holds a Tensor, not a state dict"),
        ({7: torch.zeros(3)}, "is not a state dict: it has an entry 7, where names of weights are wanted"),
    ],
)
def test_other_content_is_named(tmp_path, content, sentence):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(BadWeights, match=sentence):
        read_state_dict(tmp_path / "other.pth")


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_random_damage_never_gives_anything_but_a_sentence(tmp_path, form):
    """Whatever the unpickler stumbles over, the user reads one of our sentences."""
    state = {f"layer{i}.weight": torch.rand(4, 4) for i in range(4)}
    path = tmp_path / f"weights{'.safetensors' if form == 'safetensors' else '.pth'}"
    if form == "safetensors":
        path.write_bytes(dump_state(state, half=False))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    choose = random.Random(0)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(choose.choice([0, 1, 8])):
            data[choose.randrange(min(len(data), choose.choice([60, 400, len(data)])))] = choose.randrange(256)
        if choose.random() < 0.5:
            del data[choose.randrange(1, len(data)) :]
        try:
            parse_state_dict(bytes(data), where=path.name)
        except BadWeights:
            refused += 1
    assert refused > 50


def test_folder_is_written_whole(tmp_path):
    assert write_folder(tmp_path / "a" / "b" / "v1", {"x": b"1", "y": b"2"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "a" / "b" / "v1").iterdir()} == {"x": b"1", "y": b"2"}
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["v1"]


@pytest.mark.parametrize("what", ["folder", "file", "dangling link"])
def test_folder_that_is_there_stays_as_it_is(tmp_path, what):
    place = tmp_path / "v1"
    if what == "folder":
        place.mkdir()
    elif what == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path / "nowhere")
    assert not write_folder(place, {"x": b"1"})
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]
    assert not (place / "x").exists()


@pytest.mark.parametrize("step", ["open", "fsync", "rename"])
def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, step):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    owner, name = {"open": (Path, "open"), "fsync": (os, "fsync"), "rename": (Path, "rename")}[step]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        with pytest.raises(StorageError, match="could not be written to .*: No space left on device; free some space"):
            write_folder(tmp_path / "models" / "tiny" / "v1", {"x": b"1"})
    assert list(tmp_path.iterdir()) == []


def test_place_that_is_a_file_gets_one_sentence(tmp_path):
    (tmp_path / "models").write_text("not a folder")
    with pytest.raises(StorageError, match="could not be written to .*models.*: Not a directory"):
        write_folder(tmp_path / "models" / "tiny" / "v1", {"x": b"1"})


def test_one_of_many_writers_wins_and_none_disturbs_another(tmp_path):
    """Writers of one process share its number, so their temporary folders must differ by more than that."""
    barrier = threading.Barrier(8)
    won = []

    def write(number):
        barrier.wait()
        if write_folder(tmp_path / "v1", {"x": bytes([number]) * 100_000, "y": b"2"}):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert (tmp_path / "v1" / "x").read_bytes() == bytes(won) * 100_000
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def test_digest_is_that_of_every_other_tool():
    assert digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
