#!/bin/sh
# Downloads the iptables and nft of other Debian releases, with their libraries, and unpacks them
# into .cache/userland/SUITE/bin. trixie has iptables 1.8.11 and nft 1.1. sid has the newest
# versions. Nothing is installed: the host's programs stay as they are. The script needs no root.
#
#   hack/userland.sh SUITE...
set -eu
cd "$(dirname "$0")/.."
for suite; do
	to=$PWD/.cache/userland/$suite
	[ -x "$to/bin/nft" ] && continue
	new=$to.new
	rm -rf "$to" "$new"
	mkdir -p "$new/bin"
	hack/unpack.sh "$suite" "$new/root" iptables nftables

	libraries=$to/root/usr/lib/x86_64-linux-gnu:$to/root/lib/x86_64-linux-gnu
	# These programs need a newer C library than the host's, so the loader of their own release
	# starts them.
	loader=$(cd "$new/root" && find usr/lib64 lib64 -name 'ld-linux*' 2>/dev/null | head -1)
	run="XTABLES_LIBDIR=$to/root/usr/lib/x86_64-linux-gnu/xtables exec $to/root/$loader --library-path $libraries"
	for family in ip ip6; do
		for name in "${family}tables" "${family}tables-save" "${family}tables-restore"; do
			printf '#!/bin/sh\n%s %s/root/usr/sbin/xtables-nft-multi %s "$@"\n' "$run" "$to" "$name" >"$new/bin/$name"
			legacy=${family}tables-legacy${name#"${family}tables"}
			printf '#!/bin/sh\n%s %s/root/usr/sbin/xtables-legacy-multi %s "$@"\n' "$run" "$to" "$legacy" >"$new/bin/$legacy"
		done
	done
	printf '#!/bin/sh\n%s %s/root/usr/sbin/nft "$@"\n' "$run" "$to" >"$new/bin/nft"
	chmod +x "$new"/bin/*
	mv "$new" "$to"
done
