#!/usr/bin/env bash
# Opens the demonstration; without a display the same window opens on a virtual one and is written to demo.png.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if .venv/bin/python -I napari_medt/_system.py --display; then
    exec .venv/bin/python -m napari_medt demo "$@"
fi
echo "There is no display here: the window opens on a virtual one, and its picture is written to demo.png."
rm -f demo.png
scripts/on-display.sh .venv/bin/python -m napari_medt demo --screenshot demo.png "$@"
[ -s demo.png ] || { echo "The demonstration ended without writing demo.png." >&2; exit 1; }
echo "Written: demo.png"
