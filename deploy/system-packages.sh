#!/usr/bin/env bash
# Install every system package that forepath's lab and tests need. Idempotent: a second run changes nothing.
# Usage: deploy/system-packages.sh [--list]      (root; Debian 12 or a relative with apt)
set -euo pipefail

# package                  why
PACKAGES="
python3-venv               the virtual environment .venv
python3-dev                headers: libvirt-python is compiled on the spot
gcc                        compiles libvirt-python and the guest's agent
libc6-dev                  static C library for the guest's agent
pkg-config                 finds libvirt for libvirt-python
make                       the commands of the README
libvirt-dev                headers of libvirt
libvirt-daemon             libvirtd, one for each hypervisor host of the lab
libvirt-daemon-driver-qemu the QEMU driver of libvirtd
libvirt-clients            virsh, for people who want to look
qemu-system-x86            the emulator that runs the virtual machines
qemu-utils                 qemu-img
busybox-static             user space of the lab's small guests
openvswitch-switch         the OpenFlow switches
mininet                    mnexec, which places processes in network namespaces
iproute2                   ip and tc: namespaces, links, rate limits
iputils-ping               ping, used by Mininet's pingall
ethtool                    turns checksum offload off (userspace datapath)
iperf3                     traffic by hand in the lab
dnsmasq-base               a DHCP server and IPv6 router for the lab: what networks have, must go on
procps                     ps
util-linux                 unshare and nsenter
kmod                       module tools
strace                     make chaos delays what is written to a disk
zstd                       unpacks kernel modules where Debian compresses them
lz4                        unpacks kernels compressed with lz4
xz-utils                   unpacks kernel modules where Debian compresses them
binutils                   strip: keeps the guest's modules small
postgresql                 the larger database engine, started privately by the tests
prometheus                 promtool and the server itself, started privately by the tests
docker-compose             the schema by which deploy/compose.yaml is checked; no container is run
libpq5                     client library of PostgreSQL
chromium                   the browser in which the page is tested
chromium-driver            by which tests drive it
fonts-dejavu-core          letters and figures for the browser, where a machine has no fonts
"
names() { awk 'NF {print $1}' <<<"$PACKAGES"; }
if [ "${1:-}" = --list ]; then printf '%s\n' "$PACKAGES"; exit 0; fi

missing=()
for name in $(names); do
    dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "forepath: these system packages are missing and only root with apt can add them: ${missing[*]}" >&2
    exit 3
fi
echo "forepath: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# Nothing may start a daemon: the lab starts its own, in its own namespaces.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f '$policy EXIT
fi
apt-get update -qq
# A private cluster is made by each test run; no system-wide one is wanted.
mkdir -p /etc/postgresql-common/createcluster.d
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/forepath.conf
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
# Nor at the next boot: the tests start their own server.
if [[ " ${missing[*]} " == *" prometheus "* ]]; then systemctl disable -q prometheus 2>/dev/null || true; fi
