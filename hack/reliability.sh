#!/bin/bash
# Replaces the tables in docs/reliability.md by the result of the last "make chaos", which is in
# .cache/chaos.md. The tables are between the comments "result of make chaos" and "end".
set -euo pipefail
cd "$(dirname "$0")/.."
doc=docs/reliability.md
[ -s .cache/chaos.md ] || { echo "no .cache/chaos.md: run make chaos first, without a problem" >&2; exit 1; }
RESULT=$(<.cache/chaos.md) awk '
	$0 == "<!-- end -->" { inside = 0 }
	!inside { print }
	$0 == "<!-- result of make chaos -->" { inside = found = 1; print "\n" ENVIRON["RESULT"] "\n" }
	END { exit !found }' $doc >$doc.new || { rm $doc.new; echo "$doc has no place for the result" >&2; exit 1; }
mv $doc.new $doc
