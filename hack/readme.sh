#!/bin/bash
# Runs every command of README.md. Temporary file systems cover the folders into which the
# commands install. The script then compares the picture in README.md with the output of make
# demo.
set -eu
if [ -z "${INSIDE:-}" ]; then
	exec env INSIDE=1 unshare -m "$0"
fi
for dir in /opt/cni /etc/cni /usr/local/sbin; do
	mkdir -p "$dir"
	mount -t tmpfs tmpfs "$dir"
done
PATH=$PATH:/usr/local/sbin bash -eux <(awk '/^```sh$/ {on = 1; next} /^```/ {on = 0} on' README.md)
hack/demo-picture.sh | diff docs/demo.svg - || {
	echo 'docs/demo.svg is out of date: hack/demo-picture.sh >docs/demo.svg' >&2
	exit 1
}
