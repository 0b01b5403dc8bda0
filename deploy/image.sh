#!/bin/sh
# Makes the image of deploy/Dockerfile without Docker, as an OCI archive:
#
#   deploy/image.sh bin/bridgeveth-node bin/bridgeveth OUT.tar
#
# Import it on a node, as NAME:latest, with: ctr -n k8s.io images import --base-name NAME OUT.tar
set -eu
agent=$1 plugin=$2 out=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umoci init --layout "$work/image"
umoci new --image "$work/image:latest"
mkdir "$work/root"
cp "$agent" "$work/root/bridgeveth-node"
cp "$plugin" "$work/root/bridgeveth"
umoci insert --image "$work/image:latest" "$work/root" /
umoci config --image "$work/image:latest" --config.entrypoint /bridgeveth-node
tar -C "$work/image" -cf "$out.new" .
mv "$out.new" "$out"
