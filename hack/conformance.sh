#!/bin/bash
# Replaces the table of specs in docs/kubernetes.md by the results of make test-k8s-conformance, which
# are in .cache/e2e.
set -euo pipefail
cd "$(dirname "$0")/.."
ours=.cache/e2e/bridgeveth.results theirs=.cache/e2e/reference.results
[ -s $ours ] && [ -s $theirs ] || { echo "no results of both networks: the tests did not run" >&2; exit 1; }
[ "$(cut -f1 $ours)" = "$(cut -f1 $theirs)" ] || { echo "the results are not of the same specs" >&2; exit 1; }
{
	printf '| spec | bridgeveth | reference plugins |\n| --- | --- | --- |\n'
	paste $ours $theirs | awk -F'\t' '
		function result(state) { return state == "skipped" ? "not run" : state }
		{ gsub(/\[sig-network\] |( \[[A-Za-z]+\])+$/, "", $1); print "| " $1 " | " result($2) " | " result($4) " |" }'
} | hack/section.sh docs/kubernetes.md 'results of the specs'
