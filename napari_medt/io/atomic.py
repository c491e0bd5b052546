"""Writing a file so that at any moment either the old or the new one is there, whole."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from napari_medt.core import StorageError

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space, then try again"),
    errno.EDQUOT: ("the space allotted to you on this disk is used up", "free some space, then try again"),
    errno.EFBIG: ("the file would be larger than this disk allows", "save to another disk"),
    errno.EACCES: ("you may not write there, or another program holds the file open", "choose another folder"),
    errno.EPERM: ("you may not write there", "choose another folder"),
    errno.EROFS: ("the disk is write-protected", "choose another folder"),
    errno.ENOENT: ("the folder does not exist", "choose another folder"),
    errno.ENOTDIR: ("the folder does not exist", "choose another folder"),
    errno.EISDIR: ("there is a folder of that name", "choose another name"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter name"),
    errno.EIO: ("the disk reports a fault", "save to another disk"),
    errno.EMFILE: ("too many files are open", "close some programs, then try again"),
    errno.ENFILE: ("too many files are open", "close some programs, then try again"),
}


def storage_error(error: OSError, path: Path, *, doing: str = "written") -> StorageError:
    """Put a failure of the disk into one sentence.

    Parameters
    ----------
    error
        As the operating system raised it.
    path
        What could not be written.
    doing
        What could not be done with it, as a participle.
    """
    reason, remedy = _REASONS.get(error.errno or 0, (error.strerror or str(error), "save somewhere else"))
    return StorageError(f"{path} could not be {doing}: {reason}", remedy=remedy)


def atomic_write(path: str | os.PathLike[str], data: bytes | Callable[[BinaryIO], object]) -> Path:
    """Write a file whole or not at all.

    The bytes go to a new file beside the old, are forced to disk, and take the old file's name in one step, so that
    a crash or a full disk leaves the old file as it was. A link is followed, and an old file's permissions are kept.

    Parameters
    ----------
    path
        Where to; the folder must exist.
    data
        The bytes, or a function that writes them to the open binary file it is given.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    StorageError
        If the file cannot be written: full disk, no permission, folder gone.
    """
    target = Path(path).expanduser()
    try:
        real = Path(os.path.realpath(target))
        if real.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        temporary = real.parent / f".{real.name[:40]}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
        try:
            _write_new(temporary, data, mode=_mode_of(real))
            os.replace(temporary, real)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(real.parent)
    except OSError as error:
        raise storage_error(error, target) from error
    return target


def _mode_of(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return None


def _write_new(path: Path, data: bytes | Callable[[BinaryIO], object], *, mode: int | None) -> None:
    with path.open("x+b") as file:
        if mode is not None and hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), mode)
        if callable(data):
            data(file)
        else:
            file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force a folder's list of names to disk, where the operating system knows how (Windows does it by itself)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks cannot sync a folder
            raise
    finally:
        os.close(handle)
