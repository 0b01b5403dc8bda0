#!/bin/sh
# Builds the programs that test/k8s runs, and puts them into .cache/k8s: those of Kubernetes in
# the version in hack/k8s/go.mod, and CoreDNS in the version in hack/coredns/go.mod. The first
# build takes ten minutes on two processors, and 4 GiB for Go's build cache.
set -eu
cd "$(dirname "$0")/.."
cache=$PWD/.cache/k8s
version=$(go list -C hack/k8s -m -f '{{.Version}}' k8s.io/kubernetes)
if [ ! -x "$cache/kube-apiserver" ] || [ "$(cat "$cache/version")" != "$version" ]; then
	rm -rf "$cache.new"
	mkdir -p "$cache.new"
	echo "building Kubernetes $version: kube-apiserver, kube-controller-manager, kube-proxy, kube-scheduler, kubectl, kubelet" >&2
	minor=${version#v1.}
	# shellcheck disable=SC2046 # a list of words
	CGO_ENABLED=0 nice go build -C hack/k8s -o "$cache.new/" -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version \
		-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%%.*}" $(go list -C hack/k8s tool | grep /cmd/)
	echo "$version" >"$cache.new/version"
	rm -rf "$cache"
	mv "$cache.new" "$cache"
fi
version=$(go list -C hack/coredns -m -f '{{.Version}}' github.com/coredns/coredns)
if [ ! -x "$cache/coredns" ] || [ "$(cat "$cache/coredns.version")" != "$version" ]; then
	echo "building CoreDNS $version" >&2
	CGO_ENABLED=0 nice go build -C hack/coredns -ldflags '-s -w' -o "$cache/coredns.new"
	echo "$version" >"$cache/coredns.version"
	mv "$cache/coredns.new" "$cache/coredns"
fi
