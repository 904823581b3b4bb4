#!/bin/sh
# The first process of a testbed machine. The engine mounts the cgroup file systems read-only for a
# container without --privileged; systemd and the machine's own engine need them writable. They show no
# more than the machine's own part of the tree, since it has a cgroup namespace of its own.
for directory in /sys/fs/cgroup /sys/fs/cgroup/*; do
    if mountpoint -q "$directory"; then
        mount -o remount,bind,rw "$directory"
    fi
done
exec /sbin/init
