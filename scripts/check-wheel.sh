#!/usr/bin/env bash
# Builds the wheel, installs it into an empty environment outside the tree and looks at it there.
#
# Third-party packages are lent from .venv by links, so nothing is fetched; napari-medt itself can only come from the wheel.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tree=$(pwd -P)
outside=$(mktemp -d)
trap 'rm -rf "$outside"' EXIT

# What an earlier build left behind would find its way into this one.
rm -rf build
.venv/bin/python -m build --wheel --no-isolation --outdir "$outside/dist" . >"$outside/build.log" 2>&1 || {
    tail -30 "$outside/build.log" >&2
    exit 1
}
rm -rf build

.venv/bin/python -m venv --without-pip "$outside/venv"
.venv/bin/python - "$outside/venv" <<'PYTHON'
import sys
import sysconfig
from pathlib import Path

venv = Path(sys.argv[1])
ours = ("napari_medt", "__editable__", "distutils-precedence")
lent = venv / "lent"
lent.mkdir()
for entry in Path(sysconfig.get_path("purelib")).iterdir():
    if not entry.name.startswith(ours) and entry.name != "__pycache__":
        (lent / entry.name).symlink_to(entry)
site_packages = venv / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
(site_packages / "lent.pth").write_text(f"{lent}\n")
PYTHON
.venv/bin/python -m pip --python "$outside/venv/bin/python" --disable-pip-version-check \
    install -q --no-deps --no-index "$outside"/dist/*.whl

cd "$outside"
env -u PYTHONPATH NAPARI_MEDT_HOME="$outside/home" \
    "$tree/scripts/on-display.sh" "$outside/venv/bin/python" -I "$tree/scripts/check_installed.py" --not-under "$tree"
"$outside/venv/bin/napari-medt" --version
"$outside/venv/bin/python" -m npe2 validate napari-medt
