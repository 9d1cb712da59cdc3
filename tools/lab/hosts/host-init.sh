#!/usr/bin/env bash
# First process of one hypervisor host: private directories over the fixed paths of libvirt, private /dev and control
# groups, then libvirtd. Arguments as of host-start.sh. Everything ends with this process.
set -eu
name=$1 home=$2 trees=$4 emulator=$5
mount --make-rprivate /
hostname "$name"
for pair in etc-libvirt:/etc/libvirt run-libvirt:/run/libvirt var-libvirt:/var/lib/libvirt \
    log-libvirt:/var/log/libvirt cache-libvirt:/var/cache/libvirt; do
    mount --bind "$home/${pair%%:*}" "${pair#*:}"
done
mount -t sysfs sys /sys
mount -t tmpfs groups /sys/fs/cgroup
for tree in $trees; do
    options=${tree#*=}
    if [ -z "$options" ]; then # version 2: processes may only live in leaves
        mount -t cgroup2 groups /sys/fs/cgroup
        mkdir -p /sys/fs/cgroup/init
        for pid in $(cat /sys/fs/cgroup/cgroup.procs); do echo "$pid" >/sys/fs/cgroup/init/cgroup.procs || true; done
        echo "+cpu +memory" >/sys/fs/cgroup/cgroup.subtree_control || true
        continue
    fi
    mkdir "/sys/fs/cgroup/$options"
    mount -t cgroup -o "$options" groups "/sys/fs/cgroup/$options"
    for controller in ${options//,/ }; do
        [ -e "/sys/fs/cgroup/$controller" ] || ln -s "$options" "/sys/fs/cgroup/$controller"
    done
done
# A private /dev without kvm: nested virtualisation is not to be trusted, plain emulation is.
dev=$home/dev
mount -t tmpfs -o mode=755 dev "$dev"
mkdir "$dev"/{net,pts,shm}
for node in null zero full random urandom tty net/tun; do touch "$dev/$node"; mount --bind "/dev/$node" "$dev/$node"; done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$dev/pts"
ln -s pts/ptmx "$dev/ptmx"
ln -s /proc/self/fd "$dev/fd"
n=0; for stream in stdin stdout stderr; do ln -s /proc/self/fd/$n "$dev/$stream"; n=$((n + 1)); done
mount --move "$dev" /dev
# libvirtd's QEMU driver refuses to start without the user libvirt-qemu, even when everything runs as root.
{ cat /etc/passwd; getent passwd libvirt-qemu >/dev/null || echo 'libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin'; } >"$home/passwd"
{ cat /etc/group; getent group libvirt-qemu >/dev/null || echo 'libvirt-qemu:x:64055:'; } >"$home/group"
for file in passwd group hosts; do mount --bind "$home/$file" "/etc/$file"; done
if [ -n "$emulator" ]; then
    (cd "$emulator" && find usr/lib -maxdepth 2 -type d -name qemu) >"$home/modules"
    for part in usr/bin/qemu-system-x86_64 usr/share/qemu usr/share/seabios $(cat "$home/modules"); do
        [ -e "$emulator/$part" ] && [ -e "/$part" ] && mount --bind "$emulator/$part" "/$part"
    done
fi
libvirtd --listen -p /run/libvirt/libvirtd.pid &
while :; do wait || true; sleep 1; done
