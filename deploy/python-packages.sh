#!/usr/bin/env bash
# Make .venv and install forepath with all that this machine can carry. Expects the constraints in the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
extras=dev
# libvirt-python is compiled against the system's libvirt: without its headers the demo is simulated.
if pkg-config --exists libvirt 2>/dev/null; then extras=dev,lab; fi
echo "forepath: installing Python packages [$extras], about a minute"
.venv/bin/pip install --quiet --disable-pip-version-check --editable ".[$extras]" 2>&1 | { grep -v -e 'is ignored: it is neither' -e DEPRECATION || true; }
