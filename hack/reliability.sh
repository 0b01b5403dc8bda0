#!/bin/sh
# Replaces the tables in docs/reliability.md by the result of the last "make chaos", which is in
# .cache/chaos.md.
set -eu
cd "$(dirname "$0")/.."
[ -s .cache/chaos.md ] || { echo "no .cache/chaos.md: run make chaos first, without a problem" >&2; exit 1; }
hack/section.sh docs/reliability.md 'result of make chaos' <.cache/chaos.md
