"""One writer for a case: the lock file says who, the operating system sees to it that a crash frees it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from napari_medt.io.atomic import storage_error

_AT = 1 << 20  # Windows locks bytes, and nobody could read locked ones: lock one far behind the text


@dataclass(frozen=True)
class Holder:
    """The process that has a case open."""

    pid: int
    host: str
    started: float

    @classmethod
    def me(cls) -> Holder:
        """Return this process."""
        return cls(os.getpid(), socket.gethostname(), psutil.Process().create_time())

    def is_gone(self) -> bool:
        """Whether it ran on this computer and has ended; another process may have its number by now."""
        if self.host != socket.gethostname():
            return False
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.started) > 2)
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


class CaseLock:
    """A lock held until `release` or the end of the process, however it ends.

    Parameters
    ----------
    path
        The lock file; it stays behind, empty, when the lock is released.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Take the lock; False when another process, or another window of this one, has it.

        Raises
        ------
        StorageError
            If the lock file cannot be made.
        """
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise storage_error(error, self._path) from error
        taken = _try_lock(handle)
        if taken is None:  # a disk without locks, as some network folders: what the file says must do
            holder = self.holder()
            taken = holder is None or holder.is_gone()
        if not taken:
            os.close(handle)
            return False
        try:
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(asdict(Holder.me())).encode())
        except OSError as error:
            os.close(handle)
            raise storage_error(error, self._path) from error
        self._handle = handle
        return True

    def holder(self) -> Holder | None:
        """Return who has the lock, as far as the file says."""
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
            return Holder(int(values["pid"]), str(values["host"]), float(values["started"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def release(self) -> None:
        """Give the lock back; nothing happens without one."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, 0)
            os.close(handle)  # which frees the lock


def _try_lock(handle: int) -> bool | None:
    """Lock an open file without waiting; None where the disk knows no locks."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(handle, _AT, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            return None
        return False
    return True
