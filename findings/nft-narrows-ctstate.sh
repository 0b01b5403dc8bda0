#!/bin/sh
# nft(8) prints an iptables rule that accepts three conntrack states with only one of these states.
# After the printed ruleset is loaded, iptables refuses the table.
#
# Seen with iptables 1.8.9 and nftables 1.0.6 (Debian 12), 1.8.11 and 1.1.3 (13), 1.8.13 and 1.1.7.
# The rule is "--ctstate RELATED,ESTABLISHED,DNAT". Output:
#
#	printed: ct status dnat counter accept
#	iptables: table `filter' is incompatible, use 'nft' tool.
#
# Debian's nftables service loads /etc/nftables.conf at each boot. If this file is the output of
# "nft list ruleset", the loaded rule matches redirected connections, but no longer matches replies.
#
# Needs root, iptables-nft and nft. The exit status is 0 if the script sees this behaviour.
set -eu
if [ "${1:-}" != inside ]; then
	exec unshare -mn "$0" inside
fi
PATH=$PATH:/usr/sbin:/sbin
mount -t tmpfs none /run
iptables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
nft -s list ruleset >/run/saved 2>/dev/null
printed=$(sed -n 's/^[[:space:]]*\(ct .*accept\)$/\1/p' /run/saved)
echo "printed: $printed"
nft flush ruleset
nft -f /run/saved
refused=$(iptables-nft -S 2>&1 | sed -n "s/.*\(table .filter. is incompatible.*\)/\1/p")
echo "iptables: $refused"
[ "$printed" = "ct status dnat counter accept" ] && [ -n "$refused" ]
