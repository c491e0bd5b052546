"""Reaching a Dask scheduler, and looking at its workers, with one sentence for whatever goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from napari_medt.core import ClusterError, ClusterGone

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = 5.0  # seconds for a scheduler to answer


def connect(address: str) -> Client:
    """Connect with a scheduler.

    Raises
    ------
    ClusterError
        If Dask is not installed.
    ClusterGone
        If nothing answers that speaks as a scheduler does.
    """
    if find_spec("distributed") is None:
        raise ClusterError(
            "Predicting on other computers needs distributed", remedy="pip install 'napari-medt[cluster]'"
        )
    from distributed import Client

    with reaching(address), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions that differ are told in our own words
        with ThreadPoolExecutor(1) as thread:  # where no loop of events runs yet
            thread.submit(asyncio.run, _knock(address)).result()
        return Client(address, timeout=PATIENCE, set_as_default=False, name="napari-medt")


async def _knock(address: str) -> None:
    """Have something answer as Dask does; a client would wait forever for one that takes calls and says nothing."""
    from distributed.comm.core import connect as call
    from distributed.security import Security

    async with asyncio.timeout(PATIENCE):
        comm = await call(address, timeout=PATIENCE, **Security().get_connection_args("client"))
    await comm.close()


@contextlib.contextmanager
def reaching(address: str) -> Iterator[None]:
    """Put into one sentence what Dask raises when a scheduler does not answer or is none."""
    try:
        yield
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError, ImportError, AssertionError) as error:
        certificates = ", the certificates" if address.startswith("tls") else ""
        raise ClusterGone(
            f"The scheduler {address} does not answer",
            remedy=f"check the address{certificates}, and that `dask scheduler` runs there",
        ) from error


def look_at_workers(client: Client, address: str) -> tuple[int, tuple[str, ...]]:
    """How many workers there are, and sentences about what differs from here.

    Raises
    ------
    ClusterError
        If one has another version of this package.
    ClusterGone
        If there are none.
    """
    with reaching(address):
        found: Any = client.get_versions(packages=["napari-medt", "torch"])
    if not found["workers"]:
        raise ClusterGone(f"The scheduler {address} has no workers", remedy=f"start one with `dask worker {address}`")
    here = found["client"]["packages"]
    notes: dict[str, None] = {}
    for place, versions in found["workers"].items():
        there = versions["packages"]
        if here["napari-medt"] != there["napari-medt"]:
            has = f"napari-medt {there['napari-medt']}" if there["napari-medt"] else "no napari-medt"
            raise ClusterError(
                f"The worker {place} has {has}, but this computer has {here['napari-medt']}",
                remedy=f"install napari-medt {here['napari-medt']} there",
            )
        for name in ("torch", "numpy", "python", "distributed"):
            if here[name] != there[name]:
                notes[
                    f"Workers have {name} {there[name]}, this computer has {here[name]}; results may differ in the last digits."
                ] = None
    return len(found["workers"]), tuple(notes)
