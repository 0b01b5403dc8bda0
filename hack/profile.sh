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
call() { # verb, number of the container, command that runs the plugin and its arguments
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
		configuration|plugin.Decode|attachment.Read|skel.(*dispatcher).getCmdArgs
		namespaces, sockets|attachment.Namespaces|attachment.RefuseOwn|netns.(*Namespace).Close
		check of names|setup.(*Host).CheckAttachable
		check of the network|setup.(*Host).lockComplete|setup.(*Host).ReleaseNetwork
		veth pair|setup.(*Host).plug|setup.(*Host).removePort
		host port|hostports.Publish|hostports.Unpublish|ownrules.UnguardPort
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

# together runs a verb for the containers 2 to 9, and starts the eight plugins at the same time: each
# process waits until the script releases the lock of the file gate.
together() {
	local gate plugins=()
	exec {gate}>/run/gate
	flock $gate
	for i in $(seq 2 9); do
		call "$1" "$i" sh -c 'flock -s /run/gate true; exec "$@"' sh >/dev/null &
		plugins+=($!)
	done
	sleep 0.2
	flock -u $gate # closing the file would not release the lock, because the children have it open too
	wait "${plugins[@]}"
	exec {gate}>&-
}

# waits prints why the main threads of the plugins did not run, from the switches between threads: for
# how long, and how many times, for each plugin.
waits() {
	for n in $(seq "$rounds"); do
		perf script -i "/run/switches.$n" -F comm,pid,tid,time,event,trace,ip,sym --no-inline 2>/dev/null
		echo
	done | awk -v plugins=$((8 * rounds)) '
		function reason() {
			if (state ~ /^R/) return "a processor"
			if (stack ~ /mutex_lock.* (rtnl|rtnetlink|inet|netdev)/) return "lock of the kernel for links and addresses"
			if (stack ~ /mutex_lock.* (nf_tables|nfnetlink|nft)/) return "lock of the kernel for nf_tables"
			if (stack ~ /lock_mm|mmap_lock/) return "lock of the process for its memory"
			if (stack ~ /futex/) return "another thread of the process"
			return "other reasons"
		}
		function finish() {
			if (in_thread in since) {
				took[why[in_thread]] += now - since[in_thread]
				times[why[in_thread]]++
				delete since[in_thread]
			}
			if (out_thread != "") { since[out_thread] = now; why[out_thread] = reason() }
			in_thread = out_thread = stack = ""
		}
		function field(pattern, skipped) { return match($0, pattern) ? substr($0, RSTART + skipped, RLENGTH - skipped) : "" }
		/sched_switch:/ {
			finish()
			now = field("[0-9]+[.][0-9]+", 0) + 0
			split(field("[0-9]+/[0-9]+", 0), id, "/")
			state = field("prev_state=[A-Z]", 11)
			if (id[1] == id[2] && /prev_comm=bridgeveth/) out_thread = id[2]
			in_thread = field("next_pid=[0-9]+", 9)
			next
		}
		{ stack = stack " " $2 }
		END { finish(); for (r in took) printf "%6.2f ms %5.1f times  %s\n", 1000 * took[r] / plugins, times[r] / plugins, r }' | sort -rn
}

for i in $(seq 3 9); do ip netns add "c$i"; done
call ADD 1 >/dev/null
rounds=$((count / 5 + 1))
for n in $(seq "$rounds"); do
	perf record -q -a -e sched:sched_switch --filter 'prev_comm == "bridgeveth" || next_comm == "bridgeveth"' -g -o "/run/switches.$n" &
	recorder=$!
	sleep 0.2
	together ADD
	kill -TERM $recorder
	wait $recorder || true
	together DEL
done
echo "8 at a time, ADD waits for:"
waits
