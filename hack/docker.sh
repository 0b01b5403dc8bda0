#!/bin/sh
# Puts dockerd, and what it starts, into .cache/docker/bin, from Debian's packages.
# They are unpacked there rather than installed: a package that is installed would
# start a daemon, which changes the host's own firewall.
set -eu
cd "$(dirname "$0")/.."
to=$PWD/.cache/docker
[ -x "$to/bin/dockerd" ] && exit 0

if [ "$(id -u)" = 0 ]; then
	DEBIAN_FRONTEND=noninteractive apt-get update -qq
	apt-get install -y -qq --no-install-recommends libdevmapper1.02.1 libseccomp2 >&2
fi
rm -rf "$to" "$to.new"
mkdir -p "$to.new/packages" "$to.new/bin"
cd "$to.new/packages"
# The sandbox user of apt may not write here.
apt-get -o APT::Sandbox::User=root download -qq docker.io containerd runc tini
for deb in *.deb; do dpkg -x "$deb" ../root; done
cd ../bin
for program in ../root/usr/bin/* ../root/usr/sbin/*; do ln -sf "$program" .; done
ln -sf ../root/usr/bin/tini-static docker-init
mv "$to.new" "$to"
