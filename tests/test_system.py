"""What the set-up asks of the operating system: displays, libraries, and the scripts themselves."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

import pytest

from napari_medt import _system

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about X and Debian")


@pytest.fixture
def no_display(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


@linux_only
class TestDisplay:
    def test_none(self, no_display):
        assert not _system.display_answers()

    @pytest.mark.parametrize("display", [":9876", "localhost:9876.0", "nonsense", ":", ":x", "no.such.host.invalid:1"])
    def test_a_name_alone_is_no_display(self, no_display, monkeypatch, display):
        monkeypatch.setenv("DISPLAY", display)
        assert not _system.display_answers()

    def test_a_listening_socket_is_one(self, no_display, monkeypatch):
        number = 5000 + os.getpid() % 4000
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"\0/tmp/.X11-unix/X{number}")
            server.listen()
            monkeypatch.setenv("DISPLAY", f":{number}.0")
            assert _system.display_answers()

    def test_wayland_by_its_socket(self, no_display, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-7")
        assert not _system.display_answers()
        (tmp_path / "wayland-7").touch()
        assert _system.display_answers()


@linux_only
class TestNeeds:
    def test_a_library_that_loads_and_one_that_does_not(self):
        assert _system.Need(("libc6",), library="libc.so.6").is_met()
        assert not _system.Need(("none",), library="libnot-there.so.9").is_met()

    def test_a_command_and_a_file(self, tmp_path):
        assert _system.Need(("sh",), command="sh").is_met()
        assert not _system.Need(("none",), command="no-such-command").is_met()
        need = _system.Need(("fonts",), files=(f"{tmp_path}/none*", f"{tmp_path}/*.ttf"))
        assert not need.is_met()
        (tmp_path / "a.ttf").touch()
        assert need.is_met()

    def test_virtual_display_is_needed_only_without_a_real_one(self, monkeypatch):
        monkeypatch.setattr(_system.Need, "is_met", lambda _: False)
        always, headless = (_system.missing_needs(headless=value) for value in (False, True))
        assert {"Xvfb", "xauth"} <= {need.name for need in headless} - {need.name for need in always}
        assert {"libGL.so.1", "libxcb-cursor.so.0"} <= {need.name for need in always}

    def test_alternatives_are_printed_for_the_script(self, monkeypatch, capsys):
        monkeypatch.setattr(_system.Need, "is_met", lambda need: need.library != "libglib-2.0.so.0")
        monkeypatch.setattr(_system, "missing_venv_packages", list)
        monkeypatch.setattr(sys, "argv", ["_system.py", "--packages"])
        assert _system.main() == 0
        assert capsys.readouterr().out == "libglib2.0-0t64|libglib2.0-0\n"

    def test_of_alternatives_the_one_apt_knows(self, monkeypatch, capsys):
        monkeypatch.setattr(_system, "known_to_apt", lambda package: package in {"new", "old", "other"})
        monkeypatch.setattr(sys, "argv", ["_system.py", "--choose", "newest|new|old", "other", "unknown"])
        assert _system.main() == 0
        assert capsys.readouterr().out == "new\nother\n"


@linux_only
def test_runs_with_the_bare_system_python(root):
    """Isolated and by its path: the folder of the package must not hide modules of the standard library."""
    python = shutil.which("python3", path="/usr/bin") or sys.executable
    command = [python, "-I", "-S", str(root / "napari_medt" / "_system.py"), "--packages"]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).stderr == b""


def _shell_scripts(root):
    return [*sorted((root / "scripts").glob("*.sh")), root / ".ci" / "run"]


@linux_only
def test_scripts_are_runnable_and_strict(root):
    scripts = _shell_scripts(root)
    assert len(scripts) >= 5
    for script in scripts:
        assert os.access(script, os.X_OK), script
        assert "set -euo pipefail" in script.read_text(encoding="utf-8"), script
        subprocess.run(["bash", "-n", str(script)], check=True)


@linux_only
def test_an_old_python_is_refused_in_a_sentence(root, tmp_path):
    old = tmp_path / "bin" / "python3"
    old.parent.mkdir()
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1" && exit 0\nexit 1\n')
    old.chmod(0o755)
    copy = tmp_path / "a tree"
    for part in ("scripts/setup.sh", "setup.py", "pyproject.toml", "constraints.txt", "napari_medt/_system.py"):
        (copy / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / part, copy / part)
    environment = {**os.environ, "PYTHON": str(old)}
    answer = subprocess.run(
        [copy / "scripts" / "setup.sh", "all,test"], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert answer.stderr.startswith("napari-medt needs Python 3.11 or later, but this machine has Python 3.9.1.")
    assert not (copy / ".venv").exists()
