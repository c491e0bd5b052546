"""What the operating system must bring along: libraries of Qt and OpenGL, a display, and the packages that hold them.

Only the standard library is used and nothing of this package is imported: the set-up runs this file with the bare
system Python (`python3 -I napari_medt/_system.py --help`) before anything is installed.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from glob import glob
from pathlib import Path


@dataclass(frozen=True)
class Need:
    """One thing of the operating system.

    Attributes
    ----------
    packages
        Names it may have on Debian and Ubuntu, the newest name first.
    library
        Shared library that must load, or empty.
    command
        Program that must be on the path, or empty.
    files
        Patterns of which one must match a file, or empty.
    headless_only
        Whether it is needed only where no display is there and a virtual one must stand in.
    """

    packages: tuple[str, ...]
    library: str = ""
    command: str = ""
    files: tuple[str, ...] = ()
    headless_only: bool = False

    @property
    def name(self) -> str:
        """What is missing, in one word."""
        return self.library or self.command or self.packages[0]

    def is_met(self) -> bool:
        """Whether this system has it."""
        if self.library:
            try:
                ctypes.CDLL(self.library)
            except OSError:
                return False
        if self.command and shutil.which(self.command) is None:
            return False
        return not self.files or any(glob(pattern) for pattern in self.files)


NEEDS = (
    Need(("libgl1",), library="libGL.so.1"),
    Need(("libegl1",), library="libEGL.so.1"),
    Need(("libglib2.0-0t64", "libglib2.0-0"), library="libglib-2.0.so.0"),
    Need(("libfontconfig1",), library="libfontconfig.so.1"),
    Need(("libdbus-1-3",), library="libdbus-1.so.3"),
    Need(("libxkbcommon-x11-0",), library="libxkbcommon-x11.so.0"),
    Need(("libxcb-cursor0",), library="libxcb-cursor.so.0"),
    Need(("libxcb-icccm4",), library="libxcb-icccm.so.4"),
    Need(("libxcb-image0",), library="libxcb-image.so.0"),
    Need(("libxcb-keysyms1",), library="libxcb-keysyms.so.1"),
    Need(("libxcb-render-util0",), library="libxcb-render-util.so.0"),
    Need(("libxcb-shape0",), library="libxcb-shape.so.0"),
    Need(("libxcb-xinerama0",), library="libxcb-xinerama.so.0"),
    Need(
        ("fonts-dejavu-core",),
        files=("/usr/share/fonts/**/*.[to]tf", "/usr/share/fonts/*/*/*.[to]tf", "/usr/local/share/fonts/*.[to]tf"),
    ),
    Need(("xvfb",), command="Xvfb", headless_only=True),
    Need(("xvfb",), command="xvfb-run", headless_only=True),
    Need(("xauth",), command="xauth", headless_only=True),
    Need(
        ("libgl1-mesa-dri",),
        files=("/usr/lib*/*/dri/*_dri.so", "/usr/lib*/dri/*_dri.so", "/usr/lib*/*/libgallium-*.so"),
        headless_only=True,
    ),
)


def display_answers() -> bool:
    """Whether a window can be opened here: macOS and Windows always, elsewhere if X or Wayland answers."""
    if sys.platform in ("darwin", "win32"):
        return True
    wayland = os.environ.get("WAYLAND_DISPLAY", "")
    if wayland and (Path(os.environ.get("XDG_RUNTIME_DIR", "/")) / wayland).exists():
        return True
    host, colon, number = os.environ.get("DISPLAY", "").rpartition(":")
    number = number.split(".")[0]
    if not colon or not number.isdigit():
        return False
    if host in ("", "unix"):
        addresses = [f"/tmp/.X11-unix/X{number}", f"\0/tmp/.X11-unix/X{number}"]
        return any(_connects(socket.AF_UNIX, address) for address in addresses)
    return _connects(socket.AF_INET, (host, 6000 + int(number)))


def _connects(family: socket.AddressFamily, address: str | tuple[str, int]) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(2)
        try:
            connection.connect(address)
        except OSError:
            return False
    return True


def missing_needs(*, headless: bool) -> list[Need]:
    """Everything of `NEEDS` that this Linux lacks; nothing elsewhere, where the wheels of Qt bring all of it."""
    if not sys.platform.startswith("linux"):
        return []
    return [need for need in NEEDS if (headless or not need.headless_only) and not need.is_met()]


def missing_venv_packages() -> list[tuple[str, ...]]:
    """Debian packages without which this Python cannot make a virtual environment."""
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return []
    return [(f"python{sys.version_info[0]}.{sys.version_info[1]}-venv", "python3-venv")]


def known_to_apt(package: str) -> bool:
    """Whether apt can install a package of this name."""
    answer = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True, check=False).stdout
    return "Candidate:" in answer and "Candidate: (none)" not in answer


def main() -> int:
    """Print what is missing for the set-up script, one line each.

    Returns
    -------
    int
        0, or for `--display` 1 when no display answers.
    """
    parser = argparse.ArgumentParser(description="What this system lacks for napari-medt.")
    parser.add_argument("--display", action="store_true", help="exit with 0 if a display answers, else with 1")
    parser.add_argument("--packages", action="store_true", help="print missing Debian packages, alternatives by '|'")
    parser.add_argument("--choose", nargs="*", help="of packages with alternatives, print those that apt knows")
    arguments = parser.parse_args()
    if arguments.display:
        return 0 if display_answers() else 1
    if arguments.choose is not None:
        for alternatives in arguments.choose:
            known = next((name for name in alternatives.split("|") if known_to_apt(name)), None)
            if known:
                sys.stdout.write(f"{known}\n")
        return 0
    needs = [need.packages for need in missing_needs(headless=not display_answers())]
    for packages in dict.fromkeys([*missing_venv_packages(), *needs]):
        sys.stdout.write("|".join(packages) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
