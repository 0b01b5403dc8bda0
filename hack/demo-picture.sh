#!/bin/bash
# Prints docs/demo.svg: steps 2 and 3 of the output of make demo as a picture of a terminal.
# Each "…" stands for lines that the picture leaves out.
#
#   hack/demo-picture.sh >docs/demo.svg
set -euo pipefail
cd "$(dirname "$0")/.."
make -s demo | awk '
	# The picture leaves out explanations, and lines that differ between runs, such as MAC
	# addresses.
	/^[0-9]\./ { on = /^[23]/ }
	!on || /^===/ || /^$/ || /^[A-Zb]/ { next }
	/The same by hand|all ports of the bridge/ { if (!skip) line[++n] = "   …"; skip = 1 }
	/^   ping/ { skip = 0 }
	skip { next }
	/container (green|blue)/ { getline; next }
	/^3\./ { line[++n] = "" }
	{ line[++n] = $0 }
	END {
		height = 18 * (n + 2) + 16
		printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 %d\" font-family=\"monospace\" font-size=\"13\">\n", height
		printf "<title>make demo: containers on a bridge past FORWARD DROP</title>\n"
		printf "<rect width=\"860\" height=\"%d\" rx=\"6\" fill=\"#1c1f26\"/>\n", height
		y = 26
		printf "<text x=\"16\" y=\"%d\" fill=\"#e6e6e6\">$ make demo</text>\n", y
		for (i = 1; i <= n; i++) {
			color = "#b8bec9"
			if (line[i] ~ /^[0-9]\./) color = "#ffffff\" font-weight=\"bold"
			if (line[i] ~ /NO ANSWER/ || line[i] ~ /-P FORWARD DROP/) color = "#ff7b72"
			if (line[i] ~ /: answered/ || line[i] ~ /ACCEPT/) color = "#7ee787"
			if (line[i] ~ /^ *\$/) color = "#7fb2ff"
			gsub(/&/, "\\&amp;", line[i]); gsub(/</, "\\&lt;", line[i]); gsub(/>/, "\\&gt;", line[i])
			printf "<text x=\"16\" y=\"%d\" fill=\"%s\" xml:space=\"preserve\">%s</text>\n", y + 18 * i, color, line[i]
		}
		print "</svg>"
	}'
