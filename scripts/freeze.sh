#!/usr/bin/env bash
# Writes constraints.txt from the packages in .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
{
    echo "# The whole environment the project is tested with; used as: pip install -c constraints.txt -e '.[all,test]'"
    echo "# torch stands without a local suffix, so that an installed CPU or CUDA build of this version is kept."
    .venv/bin/python -m pip freeze --all --exclude-editable --exclude napari-medt | sed -E 's/^(torch==[0-9.]+)\+.*/\1/'
} >constraints.txt.new
mv constraints.txt.new constraints.txt
