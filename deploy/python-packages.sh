#!/usr/bin/env bash
# Make .venv and install forepath with all that this machine can carry. Expects the constraints in the environment.
# $FRAMEWORK: ryu (os-ken then comes along, to test both) or os-ken, which alone needs no old setuptools.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
framework=${FRAMEWORK:-ryu}
extras=dev,os-ken left_out=()
if [ "$framework" = ryu ]; then extras+=,ryu; else left_out+=(-e ^ryu== -e ^tinyrpc==); fi
# libvirt-python is compiled against the system's libvirt: without its headers the demo is simulated.
if pkg-config --exists libvirt 2>/dev/null; then extras+=,lab; else left_out+=(-e ^libvirt-python -e ^mininet); fi
echo "forepath: installing Python packages [$extras], about a minute"
pip() { .venv/bin/pip --quiet --disable-pip-version-check "$@" 2>&1 | { grep -v -e 'is ignored: it is neither' -e DEPRECATION || true; }; }
# First what was locked, by hash; then what may have come since, by version alone, which python -m tools.audit tells.
locked=$(mktemp)
grep -v -e '^#' "${left_out[@]}" requirements.lock >"$locked"
pip install --require-hashes --no-deps --requirement "$locked" ||
    echo "forepath: not every package can be had as it is locked (requirements.lock); going on by versions alone"
rm -f "$locked"
pip install --editable ".[$extras]"
