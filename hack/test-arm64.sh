#!/bin/bash
# Runs TestMainJob/nft (ADD, CHECK, pings, DEL) with the arm64 programs of "make packages", under
# Debian's arm64 kernel in QEMU. QEMU's user mode is not enough: it has no netlink sockets for
# nf_tables. The environment variable TESTS is a pattern that selects other tests instead. The script
# needs root.
set -euo pipefail
cd "$(dirname "$0")/.."
vm=$PWD/.cache/vm
export PROGRAMS=$vm/programs-arm64 REQUIRE_NETNS=1
package=$(find .cache/packages -name 'bridgeveth_*_arm64.deb' 2>/dev/null)
[ -n "$package" ] || { echo "there is no arm64 package in .cache/packages; run: make packages" >&2; exit 1; }
rm -rf "$PROGRAMS"
mkdir -p "$PROGRAMS"
dpkg-deb --fsys-tarfile "$package" | tar -x -C "$PROGRAMS" --transform 's|.*/||' ./opt/cni/bin/bridgeveth ./usr/sbin/bvctl
ln "$PROGRAMS/bridgeveth" "$PROGRAMS/ipam-simple"
GOARCH=arm64 go build -C test -o "$PROGRAMS/" tool # cnitool and the reference plugins
GOARCH=arm64 go test -C test -c -o "$vm/cnitool-arm64.test" ./cnitool
ARCH=arm64 hack/vm.sh sh -ec "uname -rm; hack/br_netfilter.sh; cd test/cnitool
	$vm/cnitool-arm64.test -test.v -test.timeout 25m -test.parallel 2 -test.run '${TESTS:-TestMainJob/^nft\$}'" >"$vm/arm64.log" 2>&1 || status=$?
head -1 "$vm/arm64.log"
grep -E '^(---|    ---|FAIL|PASS|panic|ok)' "$vm/arm64.log" || tail "$vm/arm64.log"
if [ "${status:-0}" != 0 ] || grep -q -- '--- SKIP' "$vm/arm64.log"; then
	echo "not all passed; all of it: $vm/arm64.log" >&2
	exit 1
fi
