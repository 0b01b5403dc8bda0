#!/bin/sh
# "ifreload -a" of ifupdown2 removes ports from a bridge that other programs have added, and sets these
# ports down, even if /etc/network/interfaces has not changed.
#
# Seen with ifupdown2 3.0.0 (Debian 12 and 13). The file declares the bridge with "bridge-ports none",
# and ip adds two ports. The script prints the ports of the bridge. Output:
#
#	before: port1 port2
#	after ifreload -a: none
#	after ifreload -a, with bridge-ports-condone-regex ^port1: port1
#
# ifreload(8) says that ifreload is non-disruptive. Ports of containers and virtual machines are not in
# the file, so they differ from the file. Without a line "bridge-ports", ifreload removes them too.
#
# Needs root, ip, apt-get and Debian's packages. Packages that are not installed are unpacked in a
# temporary folder. The exit status is 0 if the script sees this behaviour.
set -eu
if [ "${1:-}" != inside ]; then
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	(cd "$tmp" && apt-get -qq -o APT::Sandbox::User=root download ifupdown2 >/dev/null)
	dpkg -x "$tmp"/*.deb "$tmp/root"
	[ ! -d "$tmp/root/sbin" ] || cp -a "$tmp/root/sbin" "$tmp/root/usr" # of Debian 12
	chmod +x "$tmp/root/usr/share/ifupdown2/__main__.py" # as its postinst does
	unshare -mn "$0" inside "$tmp/root"
	exit
fi
mount -t overlay -o "lowerdir=$2/usr:/usr" overlay /usr
mount -t tmpfs none /run
mkdir /run/network /run/etc /run/work
mount -t overlay -o "lowerdir=$2/etc:/etc,upperdir=/run/etc,workdir=/run/work" overlay /etc
mount -t tmpfs none /var/tmp
PATH=$PATH:/usr/sbin:/sbin
ip link add br0 type bridge
ip link add port1 type veth peer name peer1
ip link add port2 type veth peer name peer2
ports() { ip -o link show master br0 | sed 's/^[0-9]*: //; s/@.*//' | paste -s -d ' ' | sed 's/^$/none/'; }
reload() { # loads a file with the given line, adds the ports, and loads the file again
	printf 'auto br0\niface br0\n%s\n' "$1" >/etc/network/interfaces
	ifreload -a 2>/run/log
	ip link set port1 master br0 up
	ip link set port2 master br0 up
	before=$(ports)
	ifreload -a 2>/run/log
}
reload "bridge-ports none"
after=$(ports)
reload "bridge-ports none
bridge-ports-condone-regex ^port1"
condoned=$(ports)
echo "before: $before"
echo "after ifreload -a: $after"
echo "after ifreload -a, with bridge-ports-condone-regex ^port1: $condoned"
[ "$before, $after, $condoned" = "port1 port2, none, port1" ]
