#!/usr/bin/env bash
# Runs a command where windows can open: on the display that is there, else on a virtual one with software OpenGL.
#
# Usage: scripts/on-display.sh COMMAND [ARGUMENT...]
set -euo pipefail
# Idle threads that spin for their next turn slow torch down many times where several processes share few cores.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if "$here/.venv/bin/python" -I "$here/napari_medt/_system.py" --display; then
    exec "$@"
fi
unset WAYLAND_DISPLAY
export LIBGL_ALWAYS_SOFTWARE=1 QT_QPA_PLATFORM=xcb
exec xvfb-run -a -s "-screen 0 1440x900x24 -nolisten tcp" "$@"
