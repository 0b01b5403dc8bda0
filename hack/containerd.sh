#!/bin/sh
# Fills .cache/containerd for the tests with containerd:
#   debian     Debian 12's containerd and runc, which hack/docker.sh unpacks
#   trixie     Debian 13's containerd
#   image.tar  an image with busybox
#   2          with the argument 2: a containerd 2, in the version of hack/containerd/go.mod
set -eu
cd "$(dirname "$0")/.."
cache=$PWD/.cache/containerd
hack/docker.sh trixie
mkdir -p "$cache/trixie"
ln -sfn ../docker/bin "$cache/debian"
# In .cache/docker/trixie/bin, a script starts each program by the loader of its release. This
# does not work for the shim, because the shim starts itself again by /proc/self/exe, which would
# be the loader. Here the names are links to the programs, which also run with the host's older C
# library. trixie's runc does not run with it, so this folder has Debian 12's runc.
for program in containerd containerd-shim-runc-v2 ctr; do
	ln -sfn "../../docker/trixie/root/usr/bin/$program" "$cache/trixie/$program"
done
ln -sfn ../debian/runc "$cache/trixie/runc"

if [ ! -f "$cache/image.tar" ]; then
	new=$cache/image.new
	rm -rf "$new"
	mkdir -p "$new/packages"
	# By default, apt downloads as the user _apt, who may not write to this folder.
	(cd "$new/packages" && apt-get -o APT::Sandbox::User=root download -qq busybox-static umoci)
	for package in "$new"/packages/*.deb; do dpkg -x "$package" "$new/root"; done
	mkdir -p "$new/layer/bin" "$new/layer/www"
	cp "$new/root/bin/busybox" "$new/layer/bin"
	for applet in httpd ip ping sleep; do ln -s busybox "$new/layer/bin/$applet"; done
	echo here >"$new/layer/www/index.html"
	tar -C "$new/layer" --owner 0 --group 0 --numeric-owner -cf "$new/layer.tar" .
	umoci() { "$new/root/usr/bin/umoci" --log error "$@"; }
	umoci init --layout "$new/oci"
	umoci new --image "$new/oci:latest"
	umoci raw add-layer --image "$new/oci:latest" "$new/layer.tar"
	umoci config --image "$new/oci:latest" --config.cmd /bin/sleep --config.cmd 3600 --config.env PATH=/bin
	umoci gc --layout "$new/oci"
	tar -C "$new/oci" -cf "$new/image.tar" .
	mv "$new/image.tar" "$cache/image.tar"
	rm -rf "$new"
fi

[ "${1:-}" = 2 ] || exit 0
version=$(go list -C hack/containerd -m -f '{{.Version}}' github.com/containerd/containerd/v2)
[ -x "$cache/2/containerd" ] && [ "$(cat "$cache/2/version")" = "$version" ] && exit 0
rm -rf "$cache/2"
mkdir -p "$cache/2.new"
echo "building containerd $version" >&2
CGO_ENABLED=0 nice -n 19 go build -C hack/containerd -trimpath -o "$cache/2.new/" \
	-ldflags "-s -w -X github.com/containerd/containerd/v2/version.Version=$version" tool
ln -sf ../debian/runc "$cache/2.new/runc"
echo "$version" >"$cache/2.new/version"
mv "$cache/2.new" "$cache/2"
