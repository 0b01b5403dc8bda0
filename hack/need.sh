#!/bin/sh
# Installs the Debian packages of missing programs and prints their names. If no program is
# missing, the script does nothing. It needs root to install.
set -eu
PATH=$PATH:/usr/sbin:/sbin

package() { # prints the package of a program
	case $1 in
	ip | tc) echo iproute2 ;;
	pgrep) echo procps ;;
	iptables | ip6tables | iptables-nft | iptables-legacy) echo iptables ;;
	nft) echo nftables ;;
	ping) echo iputils-ping ;;
	setpriv | unshare) echo util-linux ;;
	qemu-system-x86_64) echo qemu-system-x86 ;;
	qemu-system-aarch64) echo qemu-system-arm ;;
	modprobe) echo kmod ;;
	perf) echo linux-perf ;;
	busybox) echo busybox-static ;;
	xz) echo xz-utils ;;
	etcd) echo etcd-server ;;
	*) echo "$1" ;;
	esac
}

missing=
for program; do
	command -v "$program" >/dev/null || missing="$missing $(package "$program")"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "missing; as root: apt-get install$missing" >&2
	exit 1
fi
echo "missing, installing:$missing" >&2
apt-get update -qq >&2
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
