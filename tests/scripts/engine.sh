#!/bin/sh
# Starts the testbed's own Docker engine on the host. It runs under `unshare --mount`, so that every mount of
# the engine and of its containers disappears with its processes.
#
# Usage: engine.sh STATE_DIR RUN_DIR CGROUP BRIDGE DOCKERD
set -eu

state_dir=$1 run_dir=$2 cgroup=$3 bridge=$4 dockerd=$5

# `down` finds all processes by their cgroup, which exists already, also after a crash. If `down` has already
# removed the cgroup, nothing may start any more.
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    set -- /sys/fs/cgroup
else
    set -- /sys/fs/cgroup/*/
fi
joined=no
for hierarchy; do
    processes=${hierarchy%/}/$cgroup/engine/cgroup.procs
    if [ -f "$processes" ] && echo $$ >"$processes"; then
        joined=yes
    fi
done
if [ "$joined" = no ]; then
    echo "cgroup $cgroup not found in /sys/fs/cgroup" >&2
    exit 1
fi

# An empty /run hides the host's containerd and Docker. Sockets that container shims leave in /run/containerd
# disappear with this namespace.
mkdir -p "$state_dir/hold"
mount --bind "$run_dir" "$state_dir/hold"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p "$run_dir"
mount --bind "$state_dir/hold" "$run_dir"
# The engine writes a key into /etc/docker, and must not read the host's daemon.json.
mkdir -p /etc/docker
mount -t tmpfs -o mode=755 tmpfs /etc/docker
echo '{}' >/etc/docker/daemon.json

# The engine changes no rule of the host's packet filter. The testbed has its own table for its network.
exec "$dockerd" \
    --config-file /etc/docker/daemon.json \
    --data-root "$state_dir/docker" \
    --exec-root "$run_dir/docker" \
    --pidfile "$run_dir/docker.pid" \
    --host "unix://$run_dir/docker.sock" \
    --bridge "$bridge" \
    --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --userland-proxy=false \
    --exec-opt native.cgroupdriver=cgroupfs \
    --cgroup-parent "/$cgroup"
