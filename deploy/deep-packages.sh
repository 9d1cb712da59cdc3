#!/usr/bin/env bash
# Add PyTorch's CPU build to .venv, for the models lstm and transformer. Does nothing where torch is there already.
# The plain wheel of torch for Linux comes with several GB of CUDA libraries that nothing here uses, so it is never
# taken: where pip cannot reach a CPU build this ends with status 3. PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS tell pip
# where there is one (PyTorch's own package index for CPUs, or a folder with the wheel).
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
has() { "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)' "$1"; }
if has torch; then exit 0; fi

version=${TORCH_VERSION:-2.13.0}
echo "forepath: installing PyTorch $version for the CPU (190 MB to fetch, 760 MB on disk)"
quietly=(--quiet --disable-pip-version-check)
# Without its dependencies: they would lift setuptools, which Ryu 4.34 holds back and torch needs for extensions only.
if ! "$python" -m pip install "${quietly[@]}" --no-deps "torch==$version+cpu" 2>/dev/null; then
    echo "forepath: pip reaches no CPU build of PyTorch $version; name one in PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS" >&2
    exit 3
fi
"$python" -m pip install "${quietly[@]}" filelock fsspec jinja2 'sympy>=1.13.3' typing-extensions 2>&1 |
    { grep -v -e 'is ignored: it is neither' -e 'dependency resolver' -e 'requires setuptools' || true; }
"$python" -W ignore -c 'import torch; torch.zeros(2).sum()'
