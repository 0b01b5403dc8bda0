#!/bin/bash
# Replaces the table of specs in docs/kubernetes.md by the results of make test-k8s-conformance, which
# are in .cache/e2e. The table is between the comments "results of the specs" and
# "end of the results".
set -euo pipefail
cd "$(dirname "$0")/.."
doc=docs/kubernetes.md
ours=.cache/e2e/bridgeveth.results theirs=.cache/e2e/reference.results
[ -s $ours ] && [ -s $theirs ] || { echo "no results of both networks: the tests did not run" >&2; exit 1; }
[ "$(cut -f1 $ours)" = "$(cut -f1 $theirs)" ] || { echo "the results are not of the same specs" >&2; exit 1; }
ROWS=$(paste $ours $theirs | awk -F'\t' '
	function result(state) { return state == "skipped" ? "not run" : state }
	{ gsub(/\[sig-network\] |( \[[A-Za-z]+\])+$/, "", $1); print "| " $1 " | " result($2) " | " result($4) " |" }') \
awk '
	$0 == "<!-- end of the results -->" { inside = 0 }
	!inside { print }
	$0 == "<!-- results of the specs -->" {
		inside = found = 1
		print "\n| spec | bridgeveth | reference plugins |\n| --- | --- | --- |\n" ENVIRON["ROWS"] "\n"
	}
	END { exit !found }' $doc >$doc.new || { rm $doc.new; echo "$doc has no table of specs" >&2; exit 1; }
mv $doc.new $doc
