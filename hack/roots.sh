#!/bin/bash
# Fills .cache/roots/SUITE with a Debian system: containerd, the reference plugins, and programs
# that the tests of the packages run. The script needs root.
#
#   hack/roots.sh SUITE...
set -eu
cd "$(dirname "$0")/.."
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -1)
for suite; do
	root=$PWD/.cache/roots/$suite
	[ -e "$root.done" ] && continue
	rm -rf "$root"
	mkdir -p "$root"
	echo "installing Debian $suite into $root" >&2
	debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$root.log"
	# Services must not start in the root.
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod +x "$root/usr/sbin/policy-rc.d"
	chroot "$root" apt-get -o APT::Sandbox::User=root update -qq
	DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get -o APT::Sandbox::User=root install -y -qq --no-install-recommends \
		containerd containernetworking-plugins iproute2 iptables iputils-ping lintian man-db nftables systemd >>"$root.log"
	touch "$root.done"
done
