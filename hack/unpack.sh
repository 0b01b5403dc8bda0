#!/bin/sh
# Downloads packages of a Debian release and the libraries that they need, and unpacks them into a
# folder. Nothing is installed: the host's programs stay as they are, and no daemon starts. The
# script needs no root. The environment variable ARCH is Debian's name of the architecture; the
# default is the architecture of this machine.
#
#   hack/unpack.sh SUITE FOLDER PACKAGE...
set -eu
suite=$1 to=$2 arch=${ARCH:-$(dpkg --print-architecture)}
shift 2
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt/lists/partial" "$to"
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -1)
echo "deb $mirror $suite main" >"$apt/sources"
# The status file is empty, so that apt regards no package as installed and lists all libraries.
touch "$apt/status"
get() {
	# By default, apt downloads as the user _apt, who may not write to this folder.
	apt-get -qq -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o APT::Sandbox::User=root -o Dir::Etc::SourceList="$apt/sources" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$apt/lists" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt" "$@"
}
get update
named=$(printf '%s\|' "$@")
packages=$(get -s --no-install-recommends install "$@" | sed -n "s/^Inst \(${named}lib[^ ]*\) .*/\1/p")
# shellcheck disable=SC2086 # a list of words
(cd "$apt" && get download $packages)
for package in "$apt"/*.deb; do dpkg -x "$package" "$to"; done
