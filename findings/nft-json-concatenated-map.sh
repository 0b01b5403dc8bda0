#!/bin/sh
# nft(8) cannot load its own JSON listing of a map that returns an address together with a port. It
# loads its text listing of the same map.
#
# Seen with nftables 1.0.6 (Debian 12). nftables 1.1.3 (13) and 1.1.7 load both listings. Output:
#
#	text: loaded
#	JSON: Invalid map type 'ipv4_addr . inet_service'.
#
# The JSON listing has the map's data type as one string, as the text has it. The JSON parser of this
# version expects a single type there. "nft -j list" ends with 0, so a saved file looks complete.
#
# Needs root and nft. The exit status is 0 if the script sees this behaviour.
set -eu
if [ "${1:-}" != inside ]; then
	exec unshare -mn "$0" inside
fi
PATH=$PATH:/usr/sbin:/sbin
mount -t tmpfs none /run
nft 'add table ip lab; add map ip lab ports { type inet_proto . inet_service : ipv4_addr . inet_service; }; add element ip lab ports { tcp . 8080 : 10.88.0.2 . 80 }'
nft list table ip lab >/run/text
nft -j list table ip lab >/run/json
nft delete table ip lab
nft -f /run/text
echo "text: loaded"
nft delete table ip lab
answer=loaded
nft -j -f /run/json >/run/error 2>&1 || answer=$(sed -n "s/.*\(Invalid map type.*\)/\1/p" /run/error)
echo "JSON: $answer"
[ "$answer" = "Invalid map type 'ipv4_addr . inet_service'." ]
