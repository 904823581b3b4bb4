#!/bin/sh
# The first process of a testbed machine. The engine mounts the cgroup file systems read-only in a container
# without --privileged, but systemd and the machine's own engine need to write to them. A cgroup namespace limits
# them to the machine's own part of the tree.
for directory in /sys/fs/cgroup /sys/fs/cgroup/*; do
    if mountpoint -q "$directory"; then
        mount -o remount,bind,rw "$directory"
    fi
done
exec /sbin/init
