#!/bin/sh
# Downloads firewalld from Debian releases and unpacks it into .cache/firewalld/SUITE. bookworm has
# firewalld 1.3, trixie has 2.3. The package is not installed, because installing would start
# firewalld and change the host's firewall. The script installs only packages that firewalld needs
# and that start no daemon.
#
#   hack/firewalld.sh [SUITE...]      the default is bookworm trixie
set -eu
cd "$(dirname "$0")/.."
cache=$PWD/.cache/firewalld
suites=
for suite in ${*:-bookworm trixie}; do
	[ -x "$cache/$suite/usr/sbin/firewalld" ] || suites="$suites $suite"
done
[ -n "$suites" ] || exit 0

if [ "$(id -u)" = 0 ]; then
	DEBIAN_FRONTEND=noninteractive apt-get update -qq
	apt-get install -y -qq --no-install-recommends dbus-daemon gir1.2-glib-2.0 python3-dbus python3-gi python3-nftables >&2
fi
for suite in $suites; do
	new=$cache/$suite.new
	rm -rf "$new" "${cache:?}/$suite"
	mkdir -p "$new/apt/lists/partial" "$new/root"
	mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -1)
	echo "deb $mirror $suite main" >"$new/apt/sources"
	# By default, apt downloads as the user _apt, who may not write to this folder.
	set -- -qq -o APT::Sandbox::User=root -o Dir::Etc::SourceList="$new/apt/sources" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$new/apt/lists" -o Dir::Cache="$new/apt"
	apt-get "$@" update
	(cd "$new/apt" && apt-get "$@" download firewalld python3-firewall)
	for package in "$new"/apt/*.deb; do dpkg -x "$package" "$new/root"; done
	mv "$new/root" "$cache/$suite"
	rm -rf "$new"
done
