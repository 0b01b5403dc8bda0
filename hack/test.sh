#!/bin/bash
# Runs every test, or those of the packages named: as root as it is, as anybody else as root
# of a user namespace.
# Prints a line for each package, the reason of each skip, and everything where a
# test fails. In CI a skip is a failure too, unless its reason says that it is a
# listed one: "LISTED SKIP: ...".
set -u
export REQUIRE_NETNS=1
mkdir -p .cache
log=.cache/test.log

go mod download # in a namespace of its own there is no way to the modules
run=()
[ "$(id -u)" = 0 ] || run=(unshare -rmn)
# Most of the time tests wait for packets that do not come, more of them than processors.
"${run[@]}" go test -count=1 -parallel 6 -timeout 14m -v "${@:-./...}" >"$log" 2>&1
status=$?

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
