#!/usr/bin/env bash
# Start one hypervisor host: join its control groups BEFORE the control-group namespace is made, then become the host.
# Usage: host-start.sh NAME DIRECTORY GROUP TREES EMULATOR_ROOT     TREES: "mount=options ..." ("mount=" for version 2)
set -eu
name=$1 group=$3 trees=$4
for tree in $trees; do echo $$ >"${tree%%=*}/$group/cgroup.procs"; done
exec nsenter --net=/run/netns/"$name" unshare -m -u -p -C -f --kill-child --mount-proc \
    bash "$(dirname "$0")/host-init.sh" "$@"
