"""A folder of images as a list of cases: states, order, what is remembered, and what may happen to files meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pydantic import ValidationError

from napari_medt.cases import Item, Screen, Worklist
from napari_medt.core import BadCase, BadImage, StorageError, Volume


@pytest.fixture
def folder(tmp_path, rng) -> Path:
    home = tmp_path / "images"
    (home / "more").mkdir(parents=True)
    for name in ("case 10.tif", "case 2.tif", "more/case 1.tif"):
        tifffile.imwrite(home / name, rng.integers(0, 255, (20, 30), dtype=np.uint8))
    return home


def names(items: tuple[Item, ...]) -> list[str]:
    return [item.name for item in items]


def work_on(worklist: Worklist, item: Item, *, accepted: bool = False) -> np.ndarray:
    """Paint something."""
    with worklist.open_case(item.key, worklist.load(item.key)) as case:
        found = case.recover()
        labels = np.zeros(case.card.shape, np.uint8) if found is None else found.labels
        before = labels.copy()
        labels[..., 3:5, 4:9] += 1
        case.record(case.journal().record("brush", before, labels))
        if accepted:
            case.accept("Dr. A")
    worklist.update(item.key)
    return labels


def test_every_image_is_a_case_in_the_order_people_count(folder):
    with Worklist.open(folder) as worklist:
        assert names(worklist.items) == ["case-2", "case-10", "more_case-1"]
        assert {item.state for item in worklist.items} == {"to do"}
        assert worklist.notes == ()
        assert worklist.work == folder / "napari-medt"
        assert worklist.current is None
        first, second, third = worklist.items
        assert worklist.next(first.key) == second
        assert worklist.previous(third.key) == second
        assert worklist.next(third.key) is None
        assert worklist.previous(first.key) is None


def test_work_on_a_folder_within_is_no_image(folder):
    with Worklist.open(folder / "more") as inner:
        work_on(inner, inner.items[0])
        assert list((folder / "more").rglob("mask.tif"))
    with Worklist.open(folder) as worklist:
        assert names(worklist.items) == ["case-2", "case-10", "more_case-1"]


def test_a_dicom_series_is_one_case(folder, rng):
    pytest.importorskip("pydicom")
    from tests.io import dicom_made as made

    scan = rng.integers(0, 2000, (7, 12, 10))
    for series, part in (("1.2.3.71", scan[:4]), ("1.2.3.72", scan[4:])):
        made.make_series(folder / "ct", part, made.positions(len(part)), series=series)
    with Worklist.open(folder) as worklist:
        found = [item for item in worklist.items if item.name.startswith("ct")]
        assert len(worklist.items) == 3 + len(found)
        assert sorted(len(worklist.load(item.key).array[0]) for item in found) == [3, 4]
        work_on(worklist, found[0])
        for path in (folder / "ct").iterdir():
            path.rename(folder / f"{path.name}.dcm")
        worklist.refresh()
        assert sorted(item.state for item in worklist.items) == ["draft", *["to do"] * 4]


def test_states_and_what_is_left(folder):
    with Worklist.open(folder) as worklist:
        two, ten, one = worklist.items
        with worklist.open_case(two.key, worklist.load(two.key)):
            assert worklist.item(two.key).state == "to do", "nothing was done yet"
        work_on(worklist, two)
        work_on(worklist, ten, accepted=True)
        assert [item.state for item in worklist.items] == ["draft", "accepted", "to do"]
        assert worklist.next(two.key).key == ten.key
        assert worklist.next(two.key, left=True).key == one.key
        worklist.sort("state")
        assert names(worklist.items) == [one.name, two.name, ten.name]
        work_on(worklist, ten)
        assert worklist.item(ten.key).state == "draft", "the accepted mask was changed"
        with worklist.open_case(one.key, worklist.load(one.key)) as case:
            case.save(np.ones(case.card.shape, np.uint8))
            case.reject("Dr. B")
        assert worklist.update(one.key).state == "second look"


def test_the_most_doubtful_come_first(folder):
    with Worklist.open(folder) as worklist:
        two, ten, one = worklist.items
        worklist.keep_doubt(one.key, 0.4, model="m")
        worklist.keep_doubt(ten.key, 0.2, model="m")
        worklist.sort("uncertainty")
        assert names(worklist.items) == [one.name, ten.name, two.name]
        for bad in (float("nan"), -1.0, float("inf")):
            with pytest.raises(ValidationError):
                worklist.keep_doubt(two.key, bad, model="m")
    with Worklist.open(folder) as worklist:
        assert worklist.order == "uncertainty"
        assert [item.uncertainty for item in worklist.items] == [0.4, 0.2, None]


def test_a_session_is_as_it_was_left(folder):
    screen = Screen(
        layers=("case 2", "mask"), camera={"zoom": 2.5, "centre": [1, 2, 3]}, contrast={"case 2": (0, 99)}, model="m@2"
    )
    with Worklist.open(folder) as worklist:
        two = worklist.items[0]
        labels = work_on(worklist, two)
        worklist.keep_screen(two.key, screen)
        assert worklist.screen(worklist.items[1].key) is None
        with pytest.raises(ValidationError):
            Screen(camera={"zoom": object()})
    with Worklist.open(folder) as worklist:
        assert worklist.current.key == two.key
        assert worklist.current.state == "draft"
        assert worklist.screen(two.key) == screen
        with worklist.open_case(two.key, worklist.load(two.key)) as case:
            np.testing.assert_array_equal(case.recover().labels, labels)
            assert case.journal().undo_name == "brush"


def test_an_image_that_was_renamed_or_moved_is_known_again(folder):
    with Worklist.open(folder) as worklist:
        two, _, one = worklist.items
        work_on(worklist, two, accepted=True)
        work_on(worklist, one)
        worklist.keep_screen(two.key, Screen(step="learn"))
        (folder / "case 2.tif").rename(folder / "more" / "patient.tif")
        shutil.copyfile(folder / "more" / "case 1.tif", folder / "twin.tif")
        worklist.refresh()
        states = {item.name: item.state for item in worklist.items}
        assert states == {"more_patient": "accepted", "case-10": "to do", "more_case-1": "draft", "twin": "to do"}
        moved = next(item for item in worklist.items if item.name == "more_patient")
        assert worklist.screen(moved.key).step == "learn"
        twin = next(item for item in worklist.items if item.name == "twin")
        worklist.open_case(twin.key, worklist.load(twin.key)).close()
        assert worklist.item(twin.key).state == "draft", "it is the same image, so the same case"
        with pytest.raises(BadImage, match="is not in the worklist"):
            worklist.item(two.key)
    os.utime(folder / "more" / "patient.tif", (1, 1))
    with Worklist.open(folder) as worklist:
        assert {item.name: item.state for item in worklist.items}["more_patient"] == "accepted"


def test_another_image_in_the_same_place_is_another_case(folder, rng):
    with Worklist.open(folder) as worklist:
        two = worklist.items[0]
        work_on(worklist, two, accepted=True)
    kept = (folder / "case 2.tif").read_bytes()
    tifffile.imwrite(folder / "case 2.tif", rng.integers(0, 255, (20, 30), dtype=np.uint8))
    with Worklist.open(folder) as worklist:
        assert worklist.item(two.key).state == "to do"
        said = "case 2.tif is another image than the one that was worked on; its mask is kept."
        assert worklist.notes == (said,)
    (folder / "back.tif").write_bytes(kept)
    with Worklist.open(folder) as worklist:
        assert {item.name: item.state for item in worklist.items}["back"] == "accepted"
        assert worklist.notes == ()


def test_an_image_that_changes_while_its_folder_is_open_is_another_case(folder, rng):
    with Worklist.open(folder) as worklist:
        two, ten, _ = worklist.items
        work_on(worklist, two, accepted=True)
        kept = (folder / "case 2.tif").read_bytes()
        tifffile.imwrite(folder / "case 2.tif", rng.integers(0, 255, (20, 30), dtype=np.uint8))
        other = worklist.load(two.key)
        assert worklist.item(two.key).state == "to do"
        assert worklist.notes == ("case 2.tif is another image than the one that was worked on; its mask is kept.",)
        with worklist.open_case(two.key, other) as case:
            assert case.recover() is None
        assert worklist.item(two.key).state == "to do"
        (folder / "case 2.tif").unlink()
        with pytest.raises(BadImage):
            worklist.load(two.key)
        (folder / "case 2.tif").write_bytes(kept)
        worklist.refresh()
        assert worklist.item(two.key).state == "accepted", "the image that was worked on is back"
        read_ahead = worklist.load(ten.key)
        tifffile.imwrite(folder / "case 10.tif", rng.integers(0, 255, (20, 30), dtype=np.uint8))
        with worklist.open_case(ten.key, read_ahead) as case:
            case.record(case.journal().record("brush", np.zeros((20, 30), np.uint8), np.ones((20, 30), np.uint8)))
            case.accept("Dr. A")
    with Worklist.open(folder) as worklist:
        assert worklist.item(ten.key).state == "to do", "what was accepted is not what lies there now"


def test_an_image_that_cannot_be_read_is_told_and_left_out(folder, rng):
    (folder / "case 3.tif").write_bytes(b"II*\0 damaged")
    with Worklist.open(folder) as worklist:
        two, three, ten, _ = worklist.items
        with pytest.raises(BadImage):
            worklist.load(three.key)
        assert worklist.next(two.key, left=True).key == ten.key
        (folder / "case 10.tif").unlink()
        with pytest.raises(BadImage, match="no file"):
            worklist.load(ten.key)
    with Worklist.open(folder) as worklist:
        assert worklist.item(three.key).problem
        tifffile.imwrite(folder / "case 3.tif", rng.integers(0, 255, (20, 30), dtype=np.uint8))
        worklist.load(three.key)
        assert worklist.item(three.key).problem == ""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_a_name_with_bytes_that_are_no_letters(folder):
    os.rename(os.fsencode(folder / "case 2.tif"), os.fsencode(folder) + b"/case \xe4.tif")
    with Worklist.open(folder) as worklist:
        odd = next(item for item in worklist.items if "case 10" not in item.key and "case 1" not in item.key)
        work_on(worklist, odd)
    with Worklist.open(folder) as worklist:
        assert worklist.item(odd.key).state == "draft"


def test_where_nothing_can_be_written_beside_the_images(folder, medt_home):
    (folder / "napari-medt").write_text("in the way")
    with Worklist.open(folder) as worklist:
        assert worklist.work.is_relative_to(medt_home / "worklists")
        (note,) = worklist.notes
        assert note.startswith(f"The work on {folder} is kept in {worklist.work}, not beside the images: ")
        work_on(worklist, worklist.items[0])
    (folder / "napari-medt").unlink()
    with Worklist.open(folder) as worklist:
        assert worklist.items[0].state == "draft", "it goes on where it was begun"
        assert "was begun there" in worklist.notes[0]
    (folder.parent / "wanted").write_text("in the way")
    with pytest.raises(StorageError):
        Worklist.open(folder, work=folder.parent / "wanted")


def test_in_a_second_window_the_list_says_so(folder):
    with Worklist.open(folder) as first, Worklist.open(folder) as second:
        assert second.read_only
        assert "open in another window" in second.notes[0]
        before = (first.work / "worklist.json").read_bytes()
        second.sort("state")
        second.keep_doubt(second.items[0].key, 0.5, model="m")
        assert (first.work / "worklist.json").read_bytes() == before
    with Worklist.open(folder) as third:
        assert not third.read_only


def test_damage_costs_as_little_as_it_can(folder):
    with Worklist.open(folder) as worklist:
        two, ten, _ = worklist.items
        labels = work_on(worklist, two)
        worklist.keep_screen(two.key, Screen(step="learn"))
        worklist.keep_screen(ten.key, Screen(step="learn"))
        path = worklist.work / "worklist.json"
    good = json.loads(path.read_text())
    bad = json.loads(path.read_text())
    next(each for each in bad["known"] if each["place"] == "case 2.tif")["screen"] = {"layers": 3}
    path.write_text(json.dumps(bad))
    with Worklist.open(folder) as worklist:
        assert worklist.item(two.key).state == "draft"
        assert worklist.screen(two.key) is None
        assert worklist.screen(ten.key).step == "learn"
        assert "damaged" in worklist.notes[0]
    for text in ("", "{", "[]", '{"schema_version": 1, "known": 3}', json.dumps({**good, "known": [1, None]})):
        path.write_text(text)
        with Worklist.open(folder) as worklist:
            assert "damaged" in worklist.notes[0]
            assert path.with_name("worklist-damaged.json").read_text() == text
            with worklist.open_case(two.key, worklist.load(two.key)) as case:
                np.testing.assert_array_equal(case.recover().labels, labels)
            assert worklist.item(two.key).state == "draft"
    path.write_text(json.dumps({**good, "schema_version": 2}))
    with pytest.raises(BadCase, match="newer version"):
        Worklist.open(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sets no limit to a file's size")
def test_a_full_disk_leaves_the_list_as_it_was(folder):
    import resource

    with Worklist.open(folder) as worklist:
        path, key = worklist.work / "worklist.json", worklist.items[0].key
        whole = path.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
            with pytest.raises(StorageError, match="larger than this disk allows"):
                worklist.keep_screen(key, Screen(step="run"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes() == whole
        worklist.keep_screen(key, Screen(step="look"))
    with Worklist.open(folder) as worklist:
        assert worklist.screen(key).step == "look"


def test_an_empty_folder_or_none(tmp_path):
    with pytest.raises(BadImage, match="no image"):
        Worklist.open(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadImage, match="no folder"):
        Worklist.open(tmp_path / "nowhere")


def test_work_on_any_channel_counts_for_the_image(folder):
    for path in folder.rglob("*.tif"):
        path.unlink()
    values = np.arange(2 * 20 * 30, dtype=np.uint16).reshape(2, 20, 30)
    tifffile.imwrite(folder / "two.ome.tif", values, metadata={"axes": "CYX"})

    def channels(worklist: Worklist, key: str) -> list[Volume]:
        volume = worklist.load(key)
        return [Volume(channel[None], volume.geometry) for channel in volume.array]

    with Worklist.open(folder) as worklist:
        (item,) = worklist.items
        first, second = channels(worklist, item.key)
        worklist.open_case(item.key, first).close()
        with worklist.open_case(item.key, second) as case:
            labels = np.ones((20, 30), np.uint8)
            case.record(case.journal().record("brush", np.zeros_like(labels), labels))
            case.accept("Dr. A")
        assert worklist.update(item.key).state == "accepted"
    for _ in range(2):
        with Worklist.open(folder) as worklist:
            (item,) = worklist.items
            assert item.state == "accepted"
            for channel in channels(worklist, item.key):  # the second is looked at last, or not at all
                worklist.open_case(item.key, channel).close()
                assert worklist.update(item.key).state == "accepted"
    with Worklist.open(folder) as worklist, worklist.open_case(item.key, first) as case:
        case.record(case.journal().record("brush", np.zeros_like(labels), labels))
        assert worklist.update(item.key).state == "accepted", "a draft on another channel takes back no signature"
        case.reject("Dr. B")
        assert worklist.update(item.key).state == "second look"
