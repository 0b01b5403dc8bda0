#!/bin/bash
# Prints the share of each step of ADD and DEL in their processor time. The script runs each verb
# COUNT times (default 100) under perf(1), in temporary namespaces, with masquerade, the FORWARD
# rules and a host port. It needs root, and perf (Debian: linux-perf).
#
#   hack/profile.sh [COUNT]
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
count=${1:-100}
if [ -z "${INSIDE:-}" ]; then
	hack/need.sh ip iptables perf unshare
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	CGO_ENABLED=0 go build -o "$dir/built" ./cmd/bridgeveth # with symbols
	cp "$dir/built" "$dir/bridgeveth"                       # a copy, as install(1) makes it
	ln "$dir/bridgeveth" "$dir/ipam-simple"
	INSIDE=$dir unshare -mn "$0" "$count"
	exit
fi
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
ip link set lo up
iptables -P FORWARD DROP
call() { # verb, number of the container, command that runs the plugin
	local verb=$1 i=$2
	shift 2
	CNI_COMMAND=$verb CNI_CONTAINERID=c$i CNI_NETNS=/run/netns/c$i CNI_IFNAME=eth0 CNI_PATH=$INSIDE "$@" "$INSIDE/bridgeveth" <<-END
		{"cniVersion": "1.1.0", "name": "net", "type": "bridgeveth", "bridge": "br0", "isDefaultGateway": true, "ipMasq": true,
		 "runtimeConfig": {"portMappings": [{"hostPort": 808$i, "containerPort": 80, "protocol": "tcp"}]},
		 "ipam": {"type": "ipam-simple", "subnet": "10.88.0.0/16", "dataDir": "/run/leases"}}
	END
}

# steps prints the steps, each with its functions. A sample of perf counts for the first step that
# has a function in the call stack of the sample.
steps() {
	cat <<-END
		package initialisation|runtime.doInit
		lease|ipam-simple.Plugin.Add|ipam-simple.Plugin.add|ipam-simple.Plugin.Del
		configuration|plugin.Decode|attachment.Read|plugin.checkConfiguration
		namespaces, sockets|attachment.Namespaces|attachment.RefuseOwn|netns.(*Namespace).Close
		check of names|setup.(*Host).CheckAttachable
		check of the network|setup.(*Host).lockComplete|setup.(*Host).ReleaseNetwork
		veth pair|setup.(*Host).plug|setup.(*Host).removePort
		host port|ownrules.Publish|ownrules.Unpublish|ownrules.UnguardPort
		container side|rtnl.Configure
		port up|setup.(*Host).finishPort
		result|plugin.PrintResult
		other work of bridgeveth|main.main
		start of the Go runtime|runtime.
	END
}
# Each function in the list must exist. If a function was renamed, its samples would count for
# another step.
go tool nm "$INSIDE/built" >/run/functions
steps | grep -v runtime | cut -d'|' -f2- | tr '|' '\n' | while read -r function; do
	grep -qF "$function" /run/functions || {
		echo "hack/profile.sh: the program has no function $function; correct the list of steps" >&2
		exit 1
	}
done

ip netns add c1
ip netns add c2
call ADD 1 >/dev/null
for n in $(seq "$count"); do
	for verb in ADD DEL; do
		call $verb 2 perf record -q -F 20000 -e cpu-clock -g -o "/run/$verb.$n" >/dev/null
	done
done
call DEL 1

for verb in ADD DEL; do
	echo "$verb:"
	for n in $(seq "$count"); do perf script -i "/run/$verb.$n" -F comm,ip,sym --no-inline 2>/dev/null; done |
		awk -v steps="$(steps)" '
			BEGIN { count = split(steps, line, "\n") }
			function take(  i, j, n, part) {
				if (stack == "") return
				all++
				for (i = 1; i <= count; i++) {
					n = split(line[i], part, "|")
					for (j = 2; j <= n; j++) if (index(stack, part[j])) { samples[part[1]]++; stack = ""; return }
				}
				samples["exec and exit, in the kernel"]++
				stack = ""
			}
			/^bridgeveth/ { take(); stack = " "; next }
			/^[^ \t]/ { take(); next }
			stack != "" { stack = stack " " $0 }
			END { take(); for (s in samples) printf "%5.1f %%  %s\n", 100 * samples[s] / all, s }' | sort -rn
done
