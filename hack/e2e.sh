#!/bin/sh
# Fills .cache/e2e for make test-k8s-conformance, in the version in hack/k8s/go.mod:
#   e2e.test   Kubernetes' own specs of the network
#   image.tar  the image of the pods that the specs run: agnhost, and Debian's programs that the
#              specs call in it
#   images     the names under which the specs run this image
set -eu
cd "$(dirname "$0")/.."
cache=$PWD/.cache/e2e
version=$(go list -C hack/k8s -m -f '{{.Version}}' k8s.io/kubernetes)
[ -f "$cache/version" ] && [ "$(cat "$cache/version")" = "$version" ] && exit 0
new=$cache.new
rm -rf "$new"
mkdir -p "$new/root"
export CGO_ENABLED=0
echo "building Kubernetes $version: e2e.test, agnhost" >&2
nice go test -C hack/k8s -c -o "$new/e2e.test" -ldflags '-s -w' ./e2e
nice go build -C hack/k8s -o "$new/root/agnhost" -ldflags '-s -w' k8s.io/kubernetes/test/images/agnhost
cp "$(go list -C hack/k8s -m -f '{{.Dir}}' k8s.io/kubernetes)"/test/images/agnhost/porter/localhost.* "$new/root" # agnhost porter is a TLS server

# The real image has these programs from Alpine.
hack/unpack.sh bookworm "$new/root" bind9-dnsutils bind9-host bind9-libs busybox-static curl dash iproute2 libc-bin netcat-openbsd zlib1g
rm -r "$new/root/usr/share"
mkdir -m 1777 "$new/root/tmp"
ln -s nc.openbsd "$new/root/bin/nc"
ln -sf dash "$new/root/bin/sh" # the shell of busybox prefers busybox's nc
for applet in $("$new/root/bin/busybox" --list); do
	[ -e "$new/root/usr/bin/$applet" ] || [ -e "$new/root/bin/$applet" ] || ln -s busybox "$new/root/bin/$applet"
done
umoci init --layout "$new/oci"
umoci new --image "$new/oci:latest"
umoci insert --image "$new/oci:latest" "$new/root" /
umoci config --image "$new/oci:latest" --config.entrypoint /agnhost --config.cmd pause --config.env PATH=/bin:/sbin:/usr/bin:/usr/sbin
tar -C "$new/oci" -cf "$new/image.tar" .
rm -r "$new/root" "$new/oci"

# Of nginx and pause, the specs need a container that runs. Of jessie-dnsutils, they need dig and
# getent.
"$new/e2e.test" -list-images | grep -E '/(agnhost|jessie-dnsutils|nginx|pause):' >"$new/images"
echo "$version" >"$new/version"
rm -rf "$cache"
mv "$new" "$cache"
