#!/usr/bin/env bash
# Makes .venv ready: a Python, the system libraries of Qt and OpenGL, the pinned packages. Does nothing when all is ready.
#
# Usage: scripts/setup.sh EXTRAS        for example: scripts/setup.sh all,test
#
# Settings:
#   PYTHON=python3.12            the Python to use, if it shall not be searched for
#   NAPARI_MEDT_SKIP_SYSTEM=1    do not look for system libraries
#   PIP_EXTRA_INDEX_URL=...      understood by pip itself, for example https://download.pytorch.org/whl/cpu
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=${1:-all,test}
venv=.venv
stamp="$venv/.ready-$extras"

# One argument, one line.
say() { printf '%s\n' "$@" >&2; }
fail() { say "$@"; exit 1; }

new_enough() { "$1" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
        if command -v "$candidate" >/dev/null && new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    local found
    found=$("${PYTHON:-python3}" --version 2>/dev/null || echo "no Python")
    fail "napari-medt needs Python 3.11 or later, but this machine has ${found}." \
        "Install a newer one, for example with: sudo apt-get install -y python3.11 python3.11-venv"
}

state_of() {
    # What the environment was made from; another place, Python or list of packages means making it anew.
    { pwd -P; "$1" -I -c 'import sys; print(sys.version)'; cat setup.py pyproject.toml constraints.txt; } | cksum
}

install_system_packages() {
    local python=$1 missing
    [ "${NAPARI_MEDT_SKIP_SYSTEM:-}" != 1 ] || return 0
    missing=$("$python" -I napari_medt/_system.py --packages)
    [ -n "$missing" ] || return 0
    # What apt could not help with last time it cannot help with now.
    [ "$missing" != "$(cat "$venv/.still-missing" 2>/dev/null)" ] || return 0
    if ! command -v apt-get >/dev/null; then
        fail "Missing here, by their Debian names: $(echo $missing)." \
            "Install them with this system's package manager and start again," \
            "or go on without them by setting NAPARI_MEDT_SKIP_SYSTEM=1."
    fi
    local packages
    if [ "$(id -u)" -ne 0 ]; then
        packages=$("$python" -I napari_medt/_system.py --choose $missing)
        # apt's lists may be absent without root: then take the last of each name's alternatives, the older one.
        [ -n "$packages" ] || packages=$(echo "$missing" | sed 's/.*|//')
        fail "Some system libraries are missing, and only root can install them." \
            "Type this one line, then start again:" "" \
            "    sudo apt-get update && sudo apt-get install -y --no-install-recommends $(echo $packages)" ""
    fi
    say "Installing system libraries: $(echo $missing)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || say "apt-get update failed; going on with the lists that are there."
    packages=$("$python" -I napari_medt/_system.py --choose $missing)
    if [ -n "$packages" ]; then
        apt-get install -y -qq --no-install-recommends $packages >&2 ||
            fail "apt-get could not install: $(echo $packages)." "Its own words above say why; mend that and start again."
    fi
    still_missing=$("$python" -I napari_medt/_system.py --packages)
    [ -z "$still_missing" ] || say "Still missing, as apt does not know them: $(echo $still_missing). Going on without."
}

make_environment() {
    local python=$1
    if [ -e "$venv" ] && ! "$venv/bin/python" -I -c 'import pip' >/dev/null 2>&1; then
        say "The environment in $venv is broken; making it anew."
        rm -rf "$venv"
    fi
    if [ -e "$venv" ] && ! new_enough "$venv/bin/python"; then
        say "The environment in $venv has a Python older than 3.11; making it anew."
        rm -rf "$venv"
    fi
    [ -e "$venv" ] || "$python" -m venv "$venv"
    local quiet=-q
    if ! "$venv/bin/python" -I -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torch"))'; then
        quiet=
        say "Installing the pinned packages; this takes some minutes the first time, mostly for torch and Qt."
        if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && [ -z "${PIP_EXTRA_INDEX_URL:-}" ]; then
            say "No NVIDIA driver was found. To fetch torch's far smaller build for processors only, stop and type:" \
                "    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo"
        fi
    fi
    local pip=("$venv/bin/python" -m pip --disable-pip-version-check)
    "${pip[@]}" install -q -c constraints.txt pip setuptools wheel
    # setuptools warns about folders named like the package wherever it installs in place.
    PYTHONWARNINGS=ignore "${pip[@]}" install $quiet -c constraints.txt --no-build-isolation -e ".[$extras]"
}

still_missing=
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(state_of "$venv/bin/python" 2>/dev/null)" ]; then
    # The packages are there; libraries may still be missing where the tree was carried to another machine.
    install_system_packages "$venv/bin/python"
    exit 0
fi
python=$(find_python)
install_system_packages "$python"
make_environment "$python"
[ -z "$still_missing" ] || echo "$still_missing" >"$venv/.still-missing"
state_of "$venv/bin/python" >"$stamp"
[ "$extras" != all,test,dev ] || cp "$stamp" "$venv/.ready-all,test"
