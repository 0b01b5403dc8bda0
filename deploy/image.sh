#!/bin/sh
# Makes the image of deploy/Dockerfile without Docker, as an OCI archive, from the programs that
# "make build node" has built:
#
#   deploy/image.sh bin OUT.tar
#
# Import it on a node, as NAME:latest, with: ctr -n k8s.io images import --base-name NAME OUT.tar
set -eu
bin=$1 out=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umoci init --layout "$work/image"
umoci new --image "$work/image:latest"
mkdir "$work/root"
cp "$bin/bridgeveth-node" "$bin/bridgeveth" "$bin/bvctl" "$work/root"
umoci insert --image "$work/image:latest" "$work/root" /
umoci config --image "$work/image:latest" --config.entrypoint /bridgeveth-node
tar -C "$work/image" -cf "$out.new" .
mv "$out.new" "$out"
