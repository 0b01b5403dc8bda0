#!/bin/sh
# ferm and FireHOL write their rules by iptables-legacy if Debian's package iptables is installed,
# although the command iptables is iptables-nft. The command iptables does not show these rules.
#
# Seen with ferm 2.5.1 and iptables 1.8.9 (Debian 12), and with ferm 2.5.1, FireHOL 3.1.8 and iptables
# 1.8.11 (Debian 13). The script runs ferm. Output:
#
#	iptables -S FORWARD: -P FORWARD ACCEPT
#	iptables-legacy -S FORWARD: -P FORWARD DROP
#
# Packets pass both kinds of rules. A program that reads only iptables does not find the policy that
# drops its packets.
#
# Needs root, apt-get and Debian's packages. Packages that are not installed are unpacked in a
# temporary folder. The exit status is 0 if the script sees this behaviour.
set -eu
if [ "${1:-}" != inside ]; then
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	mkdir -p "$tmp/partial" "$tmp/root/usr"
	apt-get -qq -y --no-install-recommends -o Dir::Cache::archives="$tmp" -o APT::Sandbox::User=root --download-only install ferm iptables >/dev/null
	for package in "$tmp"/*.deb; do [ ! -e "$package" ] || dpkg -x "$package" "$tmp/root"; done
	unshare -mn "$0" inside "$tmp/root"
	exit
fi
mount -t overlay -o "lowerdir=$2/usr:/usr" overlay /usr
mount -t tmpfs none /run
PATH=$PATH:/usr/sbin:/sbin
iptables --version | grep -q nf_tables
echo 'domain ip table filter chain FORWARD policy DROP;' >/run/ferm.conf
ferm /run/ferm.conf
nft=$(iptables -S FORWARD 2>/dev/null)
legacy=$(iptables-legacy -S FORWARD)
echo "iptables -S FORWARD: $nft"
echo "iptables-legacy -S FORWARD: $legacy"
[ "$nft, $legacy" = "-P FORWARD ACCEPT, -P FORWARD DROP" ]
