#!/bin/bash
# Runs each fuzz target of the plugins' module for a time, such as 30s. Go stores an input that
# fails in testdata/fuzz: commit it with the fix. The arguments after the time are names of targets;
# without them, the script runs all.
#
#   hack/fuzz.sh TIME [TARGET…]
set -eu
time=$1
shift
status=0
while IFS=: read -r file name; do
	[ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
	echo "$name ($(dirname "$file"))"
	go test "./$(dirname "$file")" -run '^$' -fuzz "^$name\$" -fuzztime "$time" || status=1
done < <(git ls-files '*_test.go' | xargs grep -o '^func Fuzz[A-Za-z]*' /dev/null | sed 's/func //')
exit $status
