#!/bin/sh
# Starts the testbed's own Docker engine on the host; run under `unshare --mount`, so that every mount of
# the engine and of its containers disappears with its processes, whatever way they end.
#
# Usage: engine.sh STATE_DIR RUN_DIR CGROUP BRIDGE DOCKERD
set -eu

state_dir=$1 run_dir=$2 cgroup=$3 bridge=$4 dockerd=$5

# Everything below is found again by its cgroup, which is there already: `down` kills what is in it, also
# after a crash. A `down` that was quicker has removed the cgroup; then nothing must start any more.
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
    echo "there is no cgroup $cgroup under /sys/fs/cgroup to run in" >&2
    exit 1
fi

# An empty /run of its own: neither the host's containerd nor the host's Docker is seen, and the sockets
# which container shims leave in /run/containerd die with this namespace.
mkdir -p "$state_dir/hold"
mount --bind "$run_dir" "$state_dir/hold"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p "$run_dir"
mount --bind "$state_dir/hold" "$run_dir"
# The engine writes a key into /etc/docker, and must not read the host's daemon.json.
mkdir -p /etc/docker
mount -t tmpfs -o mode=755 tmpfs /etc/docker
echo '{}' >/etc/docker/daemon.json

# No rule of the host's packet filter is touched. What the network needs is in a table of the testbed's own.
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
