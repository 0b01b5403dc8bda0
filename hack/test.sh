#!/bin/bash
# Runs every test of all modules: the product, its node agent, its pool program, and test/. With arguments, it runs
# only the tests of these packages of test/. Root runs the tests as root. Anybody else runs them
# as root of a user namespace. The script prints a line for each package and the reason of each
# skip. If a test fails, it prints the whole log. In CI a skip is a failure too, unless its reason
# begins with "LISTED SKIP: ".
set -u
export REQUIRE_NETNS=1
mkdir -p .cache
log=$PWD/.cache/test.log
: >"$log"
status=0
run=()
[ "$(id -u)" = 0 ] || run=(unshare -rmn)

run_tests() { # folder of a module, packages
	# Download the modules first, because the tests run in a network namespace that cannot reach
	# the module proxy.
	go mod download -C "$1"
	# -parallel is larger than the number of processors, because most tests wait for packets that
	# do not come.
	env TEST_RUN="$run_name" "${run[@]}" go test -C "$1" -count=1 -parallel 10 -timeout 45m -v "${@:2}" >>"$log" 2>&1 || status=$?
}

# state prints what a test could leave on the machine: links, namespaces with a name, and mounts. It
# leaves out the links that the kernel makes when it loads a module.
state() {
	ip -o link | sed -E 's/^[0-9]+: ([^:@]+).*/link \1/' | grep -v -E ' (ifb[01]|dummy0|bond0|sit0|tunl0|ip6tnl0|gre0|gretap0|erspan0|ip6gre0|ip6?_vti0)$'
	find /run/netns -mindepth 1 2>/dev/null | sed 's/^/namespace /'
	awk '{print "mount", $5}' /proc/self/mountinfo
}

# leftover_processes prints the processes that the tests have started and that still run. They have
# inherited the variable TEST_RUN.
leftover_processes() {
	grep -lsz "^TEST_RUN=$run_name\$" /proc/[0-9]*/environ | while IFS=/ read -r _ _ pid _; do
		echo "process $pid $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline")"
	done
}

run_name=$$.$RANDOM
before=$(state | sort)

[ $# != 0 ] || { run_tests . ./... && run_tests cmd/bridgeveth-node ./... && run_tests cmd/bridgeveth-pool ./...; }
run_tests test "${@:-./...}"

for _ in {1..30}; do # some processes end only a moment after the test
	[ -n "$(leftover_processes)" ] || break
	sleep 1
done
left=$({ diff <(echo "$before") <(state | sort) | grep '^>'; leftover_processes; })
if [ -n "$left" ]; then
	echo "the tests have left on the machine:" >&2
	echo "$left" >&2
	status=1
fi

if [ $status != 0 ]; then
	grep -v -E '^=== |^ *--- PASS' "$log"
	exit $status
fi
grep -E '^(ok|\?)' "$log"
grep -o 'MEASURED: .*' "$log"
if grep -q -E '^ *--- SKIP' "$log"; then
	echo "skipped:"
	grep -E '^ *--- SKIP|LISTED SKIP: ' "$log"
	# The counts are compared, because the log does not have the reason of a parallel subtest next
	# to the line with its result.
	if [ -n "${CI:-}" ] && [ "$(grep -c -E '^ *--- SKIP' "$log")" != "$(grep -c 'LISTED SKIP: ' "$log")" ]; then
		echo "a skip that is not listed counts as a failure in CI" >&2
		exit 1
	fi
fi
echo "passed: $(grep -c -E '^ *--- PASS' "$log") tests"
