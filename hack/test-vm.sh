#!/bin/bash
# Runs the tests that send packets in a virtual machine with Debian's kernels, because this
# machine's kernel may lack features. The environment variable SUITES lists the Debian releases
# whose kernels are used. The environment variable TESTS is a pattern that selects other tests
# instead.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/need.sh iperf3
vm=$PWD/.cache/vm
rm -rf "$vm/programs"
mkdir -p "$vm/programs"
export PROGRAMS=$vm/programs REQUIRE_NETNS=1
go test -C test -count=1 -run '^$' ./cnitool # builds the programs
go test -C test -c -o "$vm/cnitool.test" ./cnitool
tests=${TESTS:-TestVLAN|TestMainJob|TestHostPort|TestStaleFlows|TestLocalnet|TestIngressPolicy|TestIsolation|TestLearning|TestBPDUGuard|TestGuardByDefault|TestSpoofing|TestMasqExclude|TestInvalidPackets|TestPortIsolation|TestSCTP|TestGatewayConflict|TestEnableDAD|TestMasqueradePaths|TestRedirectionsOfOthers|TestAddressesAtOnce|TestOwnRules|TestExisting|TestFastPath}
program="$vm/cnitool.test -test.v -test.timeout 60m"
commands="$program -test.parallel 4 -test.run '$tests'"
# TestBandwidth measures rates, so no other test may use the emulated processors at the same time.
[ -n "${TESTS:-}" ] || commands="$commands; $program -test.parallel 1 -test.run 'TestBandwidth\$'"
status=0
for suite in ${SUITES:-bookworm bookworm-backports trixie-backports}; do
	SUITE=$suite hack/vm.sh sh -ec "uname -r; hack/br_netfilter.sh; modprobe tun
		cd test/cnitool; $commands" >"$vm/$suite.log" 2>&1 || status=$?
	head -1 "$vm/$suite.log"
	grep -E '^(---|    ---|FAIL|PASS|panic|ok)' "$vm/$suite.log" || tail "$vm/$suite.log"
	if [ $status != 0 ] || grep -q -- '--- SKIP' "$vm/$suite.log"; then
		echo "not all passed under the kernel of $suite; all of it: $vm/$suite.log" >&2
		exit 1
	fi
done
