#!/bin/bash
# Writes the manual pages into a folder. The pages come from docs/ and from the help of bvctl,
# bridgeveth-pool and bridgeveth-node. The folder of the programs must have go-md2man, which converts Markdown.
#
#   hack/man.sh PROGRAMS VERSION FOLDER
set -eu
cd "$(dirname "$0")/.."
programs=$1 version=$2 to=$3
mkdir -p "$to"
export LC_ALL=C.UTF-8
date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%F)

# Prints a page of docs/ without its title, as go-md2man needs it: links become plain text, and
# tables become lists, because a table is wider than a terminal.
body() { # FILE [SECTION]
	awk -v section="${2:-}" '
		function cells(line, c,   n, i) {
			gsub(/\\\|/, "\001", line)
			sub(/^\| */, "", line)
			sub(/ *\|$/, "", line)
			n = split(line, c, / *\| */)
			for (i = 1; i <= n; i++) gsub("\001", "|", c[i])
			return n
		}
		NR == 1 && section == "" { next }
		section != "" && /^## / { on = $0 == "## " section }
		section != "" && !on { next }
		/^```/ { code = !code; print; next }
		code { print; next }
		{
			gsub(/!\[[^]]*\]\([^)]*\)/, "")
			while (match($0, /\[[^][]*\]\([^)]*\)/)) {
				link = substr($0, RSTART, RLENGTH)
				text = substr(link, 2, index(link, "](") - 2)
				$0 = substr($0, 1, RSTART - 1) text substr($0, RSTART + RLENGTH)
			}
		}
		/^\|/ && !table { table = 1; columns = cells($0, head); next }
		/^\|/ && /^\| ?-/ { print ""; next }
		/^\|/ {
			n = cells($0, cell)
			print cell[1] == "" ? "-" : cell[1]
			for (i = 2; i <= n; i++) if (cell[i] != "") print ": " (n > 2 ? head[i] ": " : "") cell[i]
			print ""
			next
		}
		{ table = 0; print }' "$1"
}

# Converts a page from standard input.
page() { # NAME SECTION
	{
		printf '# %s %s "%s" "bridgeveth %s" "bridgeveth"\n' "$1" "$2" "$date" "$version"
		cat
	} | "$programs/go-md2man" | gzip -9n >"$to/$1.$2.gz"
}

# Prints the sections of a page from the help of a command of bvctl: before the text of docs/
# ("before"), and after it ("after").
help() { # before|after COMMAND...
	local part=$1
	shift
	"$programs/bvctl" "$@" --help | awk -v part="$part" '
		/^Usage:/ { after = 1; section = "SYNOPSIS"; next }
		/^(Available Commands|Flags|Global Flags):/ { sub(/:/, ""); section = toupper($0); next }
		/^Use "/ { next }
		!after { description = description $0 "\n"; next }
		section == "SYNOPSIS" { synopsis = synopsis "    " $0 "\n"; next }
		{ text[section] = text[section] "    " $0 "\n" }
		END {
			if (part == "before") printf "# SYNOPSIS\n\n%s\n# DESCRIPTION\n\n%s\n", synopsis, description
			if (part == "after") {
				n = split("AVAILABLE COMMANDS,FLAGS,GLOBAL FLAGS", order, ",")
				for (i = 1; i <= n; i++) if (order[i] in text) printf "\n# %s\n\n%s\n", order[i], text[order[i]]
			}
		}'
}

command_page() { # PAGE-OF-DOCS COMMAND...
	local source=$1
	shift
	short=$("$programs/bvctl" "${@:1:$#-1}" --help | awk -v name="${!#}" '/^Available/ { on = 1 } on && $1 == name { $1 = ""; print substr($0, 2) }')
	{
		printf '# NAME\n\n%s - %s\n\n' "$(IFS=-; echo "bvctl-$*")" "$short"
		help before "$@"
		[ "$source" = - ] || body "docs/$source"
		help after "$@"
		printf '\n# SEE ALSO\n\nbvctl(8), bridgeveth(8)\n'
	} | page "$(IFS=-; echo "bvctl-$*")" 8
}

{
	printf '# NAME\n\nbridgeveth - CNI plugin that connects containers to a bridge\n\n# DESCRIPTION\n\n'
	echo 'A container runtime runs bridgeveth for each container. bridgeveth-conf(5) describes the configuration.'
	echo
	body README.md 'What it does'
	body docs/errors.md
	printf '\n# SEE ALSO\n\nbridgeveth-conf(5), bvctl(8), ipam-simple(8)\n'
} | page bridgeveth 8
{
	printf '# NAME\n\nipam-simple - CNI plugin that leases addresses\n\n# DESCRIPTION\n\n'
	body docs/leases.md
	printf '\n# SEE ALSO\n\nbridgeveth-conf(5), bvctl-leases(8)\n'
} | page ipam-simple 8
{
	printf '# NAME\n\nbridgeveth-conf - configuration of bridgeveth and ipam-simple\n\n# DESCRIPTION\n\n'
	body docs/configuration.md
	printf '\n# SEE ALSO\n\nbridgeveth(8), ipam-simple(8)\n'
} | page bridgeveth-conf 5
{
	printf "# NAME\n\nbvctl - show, check and repair bridgeveth's containers\n\n"
	help before
	body docs/bvctl.md
	help after
	printf '\n# SEE ALSO\n\nbridgeveth(8)\n'
} | page bvctl 8
command_page doctor.md doctor
command_page config.md config
command_page - config check
command_page - config new
command_page inspect.md inspect
command_page inspect.md topology
command_page leases.md leases
command_page - leases check
command_page - leases release
command_page metrics.md metrics
command_page - node
command_page - pool
command_page - pool check
command_page - pool forget
command_page - pool release
command_page repair.md repair
{
	printf '# NAME\n\nbridgeveth-pool - claim blocks of the pools of addresses that hosts share\n\n# OPTIONS\n\n'
	"$programs/bridgeveth-pool" --help 2>&1 | sed 's/^/    /'
	printf '\n# DESCRIPTION\n\n'
	body docs/pool.md
	printf '\n# SEE ALSO\n\nbridgeveth-conf(5), bvctl-pool(8), ipam-simple(8)\n'
} | page bridgeveth-pool 8
{
	printf '# NAME\n\nbridgeveth-node - agent of a Kubernetes node\n\n# SYNOPSIS\n\n    bridgeveth-node [flags]\n\n# OPTIONS\n\n'
	"$programs/bridgeveth-node" --help 2>&1 | sed '1d; s/ (default "'"$(hostname)"'")//; s/^/    /'
	printf '\n# DESCRIPTION\n\n'
	body docs/kubernetes.md
} | page bridgeveth-node 8
