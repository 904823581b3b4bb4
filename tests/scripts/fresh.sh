#!/bin/sh
# Enters a pristine root directory as if it were a machine of its own, and runs a program there with no
# other environment than is given. Started under `unshare` as the first process of new mount, process,
# network, cgroup, host name and IPC namespaces: when it ends or is killed, the kernel ends everything
# that it started and drops every mount and every network interface below.
#
# Usage: fresh.sh ROOT HOST_PID CGROUP [rw|ro SOURCE TARGET]… -- [NAME=VALUE]… PROGRAM ARGUMENT…
set -eu

root=$1 host=$2 cgroup=$3
shift 3

# The new root has to be a mount point: `pivot_root` wants that, and so does each container's runtime.
mount --bind "$root" "$root"

# Directories that the host shares. Each is only seen in this mount namespace, so removing the root
# later does not reach them.
while [ "$1" != -- ]; do
    mkdir -p "$root$3"
    mount --bind "$2" "$root$3"
    if [ "$1" = ro ]; then mount -o remount,bind,ro "$root$3"; fi
    shift 3
done
shift

# The network: a tap device, whose packets a program on the host sends on as its own. It needs neither
# routing nor filter rules on the host. This /proc is still the host's, so the process id in it is too.
read -r own _ </proc/self/stat
mkfifo "$root/ready"
nsenter --net="/proc/$host/ns/net" slirp4netns --configure --mtu=65520 --ready-fd=3 "$own" tap0 \
    3>"$root/ready" >"$root/network.log" 2>&1 &
if ! [ "$(head -c 1 "$root/ready")" = 1 ]; then
    echo "cannot connect the fresh machine to the network:" >&2
    cat "$root/network.log" >&2
    exit 1
fi
rm "$root/ready" "$root/network.log"
hostname fresh

mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
# Of the cgroup trees only the part of this machine, which the cgroup namespace shows as the whole.
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    mount --bind "/sys/fs/cgroup/$cgroup" "$root/sys/fs/cgroup"
    # Version 2 hands controllers on only from a cgroup that has no processes of its own.
    mkdir "$root/sys/fs/cgroup/init"
    processes=$(cat "$root/sys/fs/cgroup/cgroup.procs")
    for process in $processes; do
        echo "$process" >"$root/sys/fs/cgroup/init/cgroup.procs" || true
    done
    controllers=$(cat "$root/sys/fs/cgroup/cgroup.controllers")
    for controller in $controllers; do
        echo "+$controller" >"$root/sys/fs/cgroup/cgroup.subtree_control"
    done
else
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    for tree in /sys/fs/cgroup/*; do
        name=$(basename "$tree")
        if [ -L "$tree" ]; then
            ln -s "$(readlink "$tree")" "$root/sys/fs/cgroup/$name"
        elif [ -d "$tree/$cgroup" ]; then
            mkdir "$root/sys/fs/cgroup/$name"
            mount --bind "$tree/$cgroup" "$root/sys/fs/cgroup/$name"
        fi
    done
fi

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/net" "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
while read -r name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<'DEVICES'
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
kmsg 1 11
tty 5 0
net/tun 10 200
fuse 10 229
DEVICES
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
mount -t tmpfs -o mode=755 tmpfs "$root/run"

# From here on, no file of the host can be reached but the directories that it shares.
cd "$root"
mkdir .host
pivot_root . .host
cd /
umount -l /.host
rmdir /.host

exec env -i "$@"
