#!/bin/bash
# Runs every test of all modules (the product, its node agent, and test/), or the tests of the packages of test/
# that are named. Root runs them as root. Anybody else runs them as root of a user namespace.
# It prints a line for each package and the reason of each skip. If a test fails, it prints the whole
# log. In CI a skip is a failure too, unless its reason begins with "LISTED SKIP: ".
set -u
export REQUIRE_NETNS=1
mkdir -p .cache
log=$PWD/.cache/test.log
: >"$log"
status=0
run=()
[ "$(id -u)" = 0 ] || run=(unshare -rmn)

run_tests() { # folder of a module, packages
	go mod download -C "$1" # in a namespace of its own there is no way to the modules
	# Tests mostly wait for packets that do not come, so more of them run at once than there are
	# processors.
	"${run[@]}" go test -C "$1" -count=1 -parallel 6 -timeout 14m -v "${@:2}" >>"$log" 2>&1 || status=$?
}
[ $# != 0 ] || { run_tests . ./... && run_tests cmd/bridgeveth-node ./...; }
run_tests test "${@:-./...}"

if [ $status != 0 ]; then
	grep -v -E '^=== |^ *--- PASS' "$log"
	exit $status
fi
grep -E '^(ok|\?)' "$log"
if grep -q -E '^ *--- SKIP' "$log"; then
	echo "skipped:"
	grep -E '^ *--- SKIP|LISTED SKIP: ' "$log"
	# The reason of a parallel subtest stands apart from its line of result.
	if [ -n "${CI:-}" ] && [ "$(grep -c -E '^ *--- SKIP' "$log")" != "$(grep -c 'LISTED SKIP: ' "$log")" ]; then
		echo "a skip that is not listed counts as a failure in CI" >&2
		exit 1
	fi
fi
echo "passed: $(grep -c -E '^ *--- PASS' "$log") tests"
