"""A scheduler and workers of Dask on this computer, as tests of other computers need them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path


class Processes:
    """A scheduler and workers, each a process, on the loopback."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self._scheduler = self._start("dask_scheduler", "--host", self.address, "--dashboard-address", "127.0.0.1:0")
        self.workers: list[subprocess.Popen] = []

    def _start(self, name: str, *arguments: str) -> subprocess.Popen:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        log = (self._folder / f"{name}-{time.monotonic_ns()}.log").open("wb")
        command = [sys.executable, "-m", f"distributed.cli.{name}", *arguments]
        with log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self._folder)

    def add_worker(self) -> subprocess.Popen:
        options = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1")
        self.workers.append(self._start("dask_worker", self.address, *options))
        return self.workers[-1]

    def wait_for(self, count: int) -> None:
        from distributed import Client

        with Client(self.address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=120)

    def end(self) -> None:
        for process in (*self.workers, self._scheduler):
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def cluster_of(count: int, folder: Path):
    processes = Processes(folder)
    try:
        for _ in range(count):
            processes.add_worker()
        processes.wait_for(count)
        yield processes
    finally:
        processes.end()
