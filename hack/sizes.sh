#!/bin/sh
# Fails if a package of the product has more than 2,000 lines, not counting its tests. Such a
# package holds more than one idea: split it.
set -eu
git ls-files 'cmd/*.go' 'pkg/*.go' 'plugins/*.go' | grep -v '_test\.go$' | xargs wc -l | awk '
	$2 == "total" { next }
	{ sub(/\/[^\/]*$/, "", $2); lines[$2] += $1 }
	END {
		for (p in lines) if (lines[p] > 2000) { print p ": " lines[p] " lines, more than 2000"; bad = 1 }
		exit bad
	}'
