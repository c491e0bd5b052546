"""What is installed, which device runs, where files lie, and the remedy for each thing that is missing.

Only metadata of napari and Qt is read, neither is imported, so the answer comes also where no window can open.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path
from typing import Literal

from napari_medt import _system

State = Literal["ok", "note", "missing"]

QT_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")
MEMORY_WANTED_GB = 4.0
DISK_WANTED_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes
    ----------
    subject
        What was looked at.
    state
        `"ok"`, `"note"` (the program works, but something optional or advisable is absent), `"missing"` (needed).
    detail
        What was found: a version, a path, a size.
    remedy
        What to do about it; empty when all is well.
    """

    subject: str
    state: State
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at everything.

    Returns
    -------
    list of Finding
        In the order in which they should be read.
    """
    parts: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _needed_packages,
        _optional_packages,
        _devices,
        _memory,
        _models,
        _folders,
        _window,
    )
    return [finding for part in parts for finding in part()]


def is_healthy(findings: list[Finding]) -> bool:
    """Whether nothing needed is missing."""
    return all(finding.state != "missing" for finding in findings)


def as_dict(findings: list[Finding]) -> dict[str, object]:
    """Return the report as plain values, for JSON."""
    return {"healthy": is_healthy(findings), "findings": [asdict(finding) for finding in findings]}


def _python() -> Iterator[Finding]:
    from napari_medt import __version__

    yield Finding("napari-medt", "ok", f"{__version__} in {Path(__file__).parent}")
    yield Finding("Python", "ok", f"{platform.python_version()} in {sys.prefix}, {platform.platform(terse=True)}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _needed_packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    try:
        texts = requires("napari-medt") or []
    except PackageNotFoundError:
        yield Finding(
            "installation",
            "missing",
            "the package runs from its folder without being installed, so napari cannot find it",
            "in the folder of the project type: pip install -e '.[all]'",
        )
        return
    for requirement in map(Requirement, texts):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if found is None:
            yield Finding(requirement.name, "missing", "not installed", f"pip install '{requirement}'")
        elif not requirement.specifier.contains(found, prereleases=True):
            detail = f"{found} is installed, {requirement.specifier} is needed"
            yield Finding(requirement.name, "missing", detail, f"pip install --upgrade '{requirement}'")
        else:
            yield Finding(requirement.name, "ok", found)


def _optional_packages() -> Iterator[Finding]:
    remedy = "pip install 'napari-medt[all]'"
    for package, purpose in (
        ("napari", "the window"),
        ("pyqtgraph", "the curves in the dock"),
        ("monai", "training with MONAI's losses and augmentation"),
    ):
        found = _version(package)
        if found is None:
            yield Finding(package, "note", f"not installed; needed for {purpose}", remedy)
        else:
            yield Finding(package, "ok", found)
    bindings = [f"{name} {found}" for name in QT_BINDINGS if (found := _version(name))]
    if bindings:
        yield Finding("Qt", "ok", ", ".join(bindings))
    else:
        yield Finding("Qt", "note", "no Qt is installed; needed for the window", remedy)
    if any(entry.name == "napari-medt" for entry in entry_points(group="napari.manifest")):
        yield Finding("napari plugin", "ok", "registered: Plugins > MedT Review")
    else:
        yield Finding("napari plugin", "note", "napari does not know this plugin", "install the package again with pip")


def _devices() -> Iterator[Finding]:
    try:
        import torch

        from napari_medt.zoo.devices import choose_device, list_devices
    except (ImportError, OSError, RuntimeError) as error:
        if _version("torch") is not None:
            yield Finding(
                "torch at work", "missing", f"installed, but it does not load: {error}", "install torch again"
            )
        return
    chosen = str(choose_device("auto"))
    yield Finding("devices", "ok", f"{', '.join(list_devices())}; automatic choice: {chosen}")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        detail = f"{torch.cuda.get_device_name(index)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        yield Finding(f"cuda:{index}", "ok", detail)
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        yield Finding(
            "CUDA",
            "note",
            f"an NVIDIA driver is there, but torch {torch.__version__} does not reach the card",
            "choose the command for this driver on https://pytorch.org/get-started/locally",
        )
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    yield Finding("processor", "ok", f"{cores} cores, torch uses {threads} threads")


def _memory() -> Iterator[Finding]:
    try:
        import psutil
    except ImportError:
        return
    from napari_medt.core.memory import allowed

    memory = psutil.virtual_memory()
    free = allowed(memory.available)
    detail = f"{free / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    if free < MEMORY_WANTED_GB * 1e9:
        yield Finding("memory", "note", detail, "close other programs before working on large images")
    else:
        yield Finding("memory", "ok", detail)


def _models() -> Iterator[Finding]:
    from napari_medt.core import MedtError

    try:
        from napari_medt.zoo import broken_models, list_models

        keys, broken = [card.key for card in list_models()], broken_models()
    except (ImportError, MedtError) as error:
        yield Finding("models", "missing", f"the list of models cannot be read: {error}", "install the package again")
        return
    if any(key.startswith("medt-nuclei@") for key in keys):
        yield Finding("models", "ok", ", ".join(keys))
    else:
        yield Finding("models", "missing", "the bundled model medt-nuclei is not there", "install the package again")
    for sentence in broken:
        yield Finding("a stored model", "note", sentence)


def _folders() -> Iterator[Finding]:
    try:
        from napari_medt.zoo import models_folder
    except ImportError:
        return
    yield _folder("models folder", Path(models_folder()))
    try:
        from napari_medt.cases import cases_folder
    except ImportError:
        return
    yield _folder("cases folder", Path(cases_folder()))


def _folder(subject: str, folder: Path) -> Finding:
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        remedy = "set the environment variable NAPARI_MEDT_HOME to a folder you may write to"
        return Finding(subject, "missing", f"{folder} cannot be written to", remedy)
    free_gb = shutil.disk_usage(nearest).free / 1e9
    detail = f"{folder}{'' if folder.exists() else ' (made when first used)'}, {free_gb:.1f} GB free"
    if free_gb < DISK_WANTED_GB:
        return Finding(subject, "note", detail, "make room on this disk, or set NAPARI_MEDT_HOME to a folder elsewhere")
    return Finding(subject, "ok", detail)


def _window() -> Iterator[Finding]:
    display = _system.display_answers()
    missing = _system.missing_needs(headless=not display)
    if display:
        yield Finding("display", "ok", os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform)
    elif any(need.command for need in missing):
        yield Finding("display", "note", "none, and no virtual one is installed", _apt_line(missing))
    else:
        remedy = "use: LIBGL_ALWAYS_SOFTWARE=1 xvfb-run -a napari-medt demo --screenshot demo.png"
        yield Finding("display", "note", "none; a virtual one can stand in", remedy)
    names = [need.name for need in missing if not need.command]
    if names:
        # Without napari no window is wanted, so its libraries are not missed.
        state: State = "note" if _version("napari") is None else "missing"
        yield Finding("OpenGL and Qt libraries", state, f"missing: {', '.join(names)}", _apt_line(missing))
    else:
        yield Finding("OpenGL and Qt libraries", "ok", "all there")


def _apt_line(missing: list[_system.Need]) -> str:
    packages = " ".join(dict.fromkeys(need.packages[-1] for need in missing))
    return f"sudo apt-get install {packages}"
