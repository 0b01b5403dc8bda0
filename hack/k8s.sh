#!/bin/sh
# Builds the Kubernetes programs that test/k8s runs into .cache/k8s, in the version that
# hack/k8s/go.mod names. The first build takes ten minutes on two processors, and 4 GiB for Go's
# build cache.
set -eu
cd "$(dirname "$0")/.."
cache=$PWD/.cache/k8s
version=$(go list -C hack/k8s -m -f '{{.Version}}' k8s.io/kubernetes)
[ -x "$cache/kube-apiserver" ] && [ "$(cat "$cache/version")" = "$version" ] && exit 0
rm -rf "$cache.new"
mkdir -p "$cache.new"
echo "building Kubernetes $version: kube-apiserver, kube-controller-manager, kube-proxy, kube-scheduler, kubectl, kubelet" >&2
minor=${version#v1.}
CGO_ENABLED=0 nice go build -C hack/k8s -o "$cache.new/" -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version \
	-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%%.*}" tool
echo "$version" >"$cache.new/version"
rm -rf "$cache"
mv "$cache.new" "$cache"
