#!/bin/bash
# Runs every command of the README as it stands there, with throw-away folders in
# place of those that it installs into.
set -eu
if [ -z "${INSIDE:-}" ]; then
	exec env INSIDE=1 unshare -m "$0"
fi
for dir in /opt/cni /etc/cni /usr/local/sbin; do
	mkdir -p "$dir"
	mount -t tmpfs tmpfs "$dir"
done
PATH=$PATH:/usr/local/sbin bash -eux <(awk '/^```sh$/ {on = 1; next} /^```/ {on = 0} on' README.md)
