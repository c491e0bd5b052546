from __future__ import annotations

import errno
import os
import stat
import sys

import pytest

from napari_medt.core import StorageError
from napari_medt.io import atomic_write


def test_bytes_and_writers(tmp_path):
    path = tmp_path / "a.bin"
    assert atomic_write(path, b"old") == path
    atomic_write(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, fails):
    path = tmp_path / "a.bin"
    atomic_write(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(
        StorageError, match=r"could not be written: the disk is full; free some space, then try again\."
    ):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    atomic_write(path, b"old")

    def fail(file):
        file.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        atomic_write(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_folder_of_that_name(tmp_path):
    (tmp_path / "a.tif").mkdir()
    with pytest.raises(StorageError, match="there is a folder of that name"):
        atomic_write(tmp_path / "a.tif", b"")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither these links nor these permissions")
def test_links_and_permissions_stay(tmp_path):
    real, link = tmp_path / "real.bin", tmp_path / "link.bin"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    atomic_write(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_names_of_any_length(tmp_path):
    atomic_write(tmp_path / ("n" * 250), b"x")
    with pytest.raises(StorageError, match="the name is too long"):
        atomic_write(tmp_path / ("n" * 300), b"x")
