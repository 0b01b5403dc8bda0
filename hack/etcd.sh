#!/bin/sh
# Builds etcd in the version in hack/etcd/go.mod, and puts it into .cache/etcd.
set -eu
cd "$(dirname "$0")/.."
cache=$PWD/.cache/etcd
version=$(go list -C hack/etcd -m -f '{{.Version}}' go.etcd.io/etcd/server/v3)
if [ ! -x "$cache/etcd" ] || [ "$(cat "$cache/version")" != "$version" ]; then
	echo "building etcd $version" >&2
	mkdir -p "$cache"
	CGO_ENABLED=0 nice go build -C hack/etcd -ldflags '-s -w' -o "$cache/etcd.new" go.etcd.io/etcd/server/v3
	mv "$cache/etcd.new" "$cache/etcd"
	echo "$version" >"$cache/version"
fi
