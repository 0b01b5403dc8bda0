#!/bin/bash
# Replaces a section of docs/performance.md by the tables of a benchmark. It reads the output of
# the benchmark from standard input:
#
#   make bench | tee /dev/stderr | hack/performance.sh 'make bench'
#   make bench-vm | tee /dev/stderr | hack/performance.sh 'make bench-vm'
#
# The argument is the name of the section. From the table of packets, the script takes only the rows
# with one connection.
set -euo pipefail
cd "$(dirname "$0")/.."
tables=$(tr -d '\r' | sed -E 's/^ +//; s/ +$//; s/  +/\t/g' | awk -F'\t' '
	/^kernel\t/ { kernel = $2; sub(/,.*/, "", kernel) }
	$1 == "path" && /fastPath/ { columns = NF; packets = 1 }
	$1 == "what" || $1 == "command" { columns = 5; packets = 0 }
	$0 == "" { columns = 0 }
	!columns || packets && $3 != "flows" && $3 != 1 { next }
	{
		row = "|"; rule = "|"
		for (i = 1; i <= columns; i++) { row = row " " $i " |"; rule = rule " --- |" }
		head = $1 == "path" || $1 == "what" || $1 == "command"
		if (head) print ""
		print row
		if (head) print rule
	}
	END { print "\nLinux " kernel }')
[[ $tables == *what* ]] || { echo "no table of targets on standard input" >&2; exit 1; }
hack/section.sh docs/performance.md "tables of $1" <<<"${tables#$'\n'}"
