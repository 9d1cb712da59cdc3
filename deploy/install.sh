#!/usr/bin/env bash
# Install forepath below $1 (e.g. /opt/forepath), in a Python environment of its own. $PACKAGE: what pip is told to install
# (a wheel made elsewhere, for a machine without a network); without it, this checkout. Expects the constraints in the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
prefix=$(realpath -m "${1:?deploy/install.sh PREFIX}")
[ -x "$prefix/bin/python" ] || "${PYTHON:-python3}" -m venv "$prefix"
# libvirt-python is compiled against the system's libvirt.
if [ -z "${PACKAGE:-}" ]; then
    extras=${FRAMEWORK:-ryu}
    if pkg-config --exists libvirt 2>/dev/null; then extras+=,libvirt; fi
    PACKAGE=".[$extras]"
fi
read -ra words <<<"$PACKAGE"
"$prefix/bin/pip" install --quiet --disable-pip-version-check --upgrade "${words[@]}"
# Units name the place where they were installed.
sed -i "s#/opt/forepath/bin#$prefix/bin#g" "$prefix"/share/forepath/systemd/*.service
completions=$prefix/share/bash-completion/completions
mkdir -p "$completions"
_FOREPATH_COMPLETE=source_bash "$prefix/bin/forepath" >"$completions/forepath"
echo "forepath is installed: $prefix/bin/forepath; units: $prefix/share/forepath/systemd (docs/running.md)"
