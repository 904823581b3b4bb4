#!/bin/sh
# Waits until this machine has booted and its Docker engine answers. Prints the reason on failure.
# Usage: machine-ready.sh SECONDS
deadline=$(($(date +%s) + $1))
# The socket of systemd appears a moment after its process.
while ! [ -S /run/systemd/private ]; do
    if [ "$(date +%s)" -ge "$deadline" ]; then
        echo "systemd did not start within $1 s"
        exit 1
    fi
    sleep 0.05
done
state=$(timeout "$1" systemctl is-system-running --wait 2>&1)
if [ "$state" != running ]; then
    echo "the state of the machine is '$state' instead of 'running'"
    systemctl --no-pager --full --failed
    journalctl --no-pager --boot --priority warning --lines 30
    exit 1
fi
if ! reason=$(timeout 20 docker info 2>&1 >/dev/null); then
    echo "the machine's Docker engine does not answer: $reason"
    journalctl --no-pager --boot --unit docker --lines 30
    exit 1
fi
