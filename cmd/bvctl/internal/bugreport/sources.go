package bugreport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// programWait is the longest time that a program may take. A listing of 100,000 rules takes a few
// seconds.
const programWait = 30 * time.Second

// command is a command whose output belongs to the archive.
type command struct{ name, line string }

// own are the commands of bvctl itself.
var own = []command{
	{"inspect.json", "inspect -o json"},
	{"leases.json", "leases -o json"},
	{"leases-check.txt", "leases check"},
	{"metrics.txt", "metrics"},
}

// commands are the commands that describe the host.
var commands = []command{
	{"versions/kernel.txt", "uname -srvm"}, // without -n, the name of the host
	{"versions/iptables.txt", "iptables --version"},
	{"versions/iptables-legacy.txt", "iptables-legacy --version"},
	{"versions/nft.txt", "nft --version"},
	{"versions/ip.txt", "ip -V"},
	{"versions/systemd.txt", "systemctl --version"},
	{"versions/firewalld.txt", "firewall-cmd --version"},
	{"versions/containerd.txt", "containerd --version"},
	{"versions/crio.txt", "crio --version"},
	{"versions/nerdctl.txt", "nerdctl --version"},
	{"versions/podman.txt", "podman --version"},
	{"versions/dockerd.txt", "dockerd --version"},
	{"versions/kubelet.txt", "kubelet --version"},
	{"rules/nft.txt", "nft -a list ruleset"},
	{"rules/iptables.txt", "iptables-save -c"},
	{"rules/ip6tables.txt", "ip6tables-save -c"},
	{"network/link.txt", "ip -d -s link show"},
	{"network/address.txt", "ip -d address show"},
	{"network/route.txt", "ip -d route show table all"},
	{"network/route6.txt", "ip -d -6 route show table all"},
	{"network/rule.txt", "ip rule show"},
	{"network/rule6.txt", "ip -6 rule show"},
	{"network/neighbour.txt", "ip neighbour show"},
	{"network/bridge-link.txt", "bridge -d link show"},
	{"network/bridge-fdb.txt", "bridge fdb show"},
	{"network/bridge-vlan.txt", "bridge vlan show"},
	{"network/qdisc.txt", "tc -s qdisc show"},
}

// legacy are the listings of iptables-legacy, by the file that names the tables in the kernel.
// Without a table, iptables-legacy-save would create tables.
var legacy = map[string]command{
	"/proc/net/ip_tables_names":  {"rules/iptables-legacy.txt", "iptables-legacy-save -c"},
	"/proc/net/ip6_tables_names": {"rules/ip6tables-legacy.txt", "ip6tables-legacy-save -c"},
}

// sysctls are patterns of the sysctls that decide about packets of containers.
var sysctls = []string{
	"net/ipv4/ip_forward", "net/ipv4/conf/*/forwarding", "net/ipv4/conf/*/rp_filter", "net/ipv4/conf/*/route_localnet", "net/ipv4/conf/*/arp_*",
	"net/ipv4/conf/*/proxy_arp", "net/ipv4/neigh/default/gc_*", "net/ipv6/conf/*/forwarding", "net/ipv6/conf/*/disable_ipv6", "net/ipv6/conf/*/accept_ra",
	"net/ipv6/conf/*/accept_dad", "net/ipv6/neigh/default/gc_*", "net/bridge/*", "net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_count",
	"net/netfilter/nf_conntrack_tcp_be_liberal",
}

// runtimeConfigs are the configurations of runtimes. The archive has only their lines about CNI.
var runtimeConfigs = []string{"/etc/containerd/config.toml", "/etc/crio/crio.conf", "/etc/crio/crio.conf.d/*", "/etc/containers/containers.conf", "/etc/nerdctl/nerdctl.toml"}

// aboutCNI matches a line about CNI in the configuration of a runtime.
var aboutCNI = regexp.MustCompile(`(?m)^\s*(bin_dirs?|conf_dir|max_conf_num|conf_template|network_dir|plugin_dirs|cni_\w+|network_backend|cni_path|cni_netconfpath)\s*=.*$`)

// collect returns all entries about the host.
func collect(ctx context.Context, inv *inventory.Inventory) (list []Entry) {
	list = append(list, Entry{Name: "versions/bvctl.txt", Content: []byte(plugin.Version + "\n")})
	for _, c := range own {
		args := append(strings.Fields(c.line), "--conf-dir", inv.ConfDir, "--cache-dir", inv.CacheDir, "--data-dir", inv.DataDir)
		entries := run(ctx, c.name, "/proc/self/exe", args...)
		var exit *exec.ExitError
		if errors.As(entries[0].Err, &exit) && exit.ExitCode() == 1 {
			entries[0].Err = nil // bvctl has found problems
		}
		list = append(list, entries...)
	}
	all := slices.Clone(commands)
	for file, c := range legacy {
		if tables, err := os.ReadFile(file); err == nil && len(tables) > 0 {
			all = append(all, c)
		}
	}
	for _, c := range all {
		words := strings.Fields(c.line)
		program, err := find(words[0])
		if err != nil {
			list = append(list, Entry{Name: c.name, Err: err})
			continue
		}
		list = append(list, run(ctx, c.name, program, words[1:]...)...)
	}
	list = append(list, readSysctls())
	for _, pattern := range runtimeConfigs {
		list = append(list, read(pattern, func(content []byte) ([]byte, error) {
			return append(bytes.Join(aboutCNI.FindAll(content, -1), []byte("\n")), '\n'), nil
		})...)
	}
	for _, ext := range []string{".conf", ".conflist", ".json"} {
		list = append(list, read(filepath.Join(inv.ConfDir, "*"+ext), tidy)...)
	}
	return append(list, read(filepath.Join(inv.CacheDir, "results", "*"), tidyRecord)...)
}

// find returns the path of a program in the folders of the system.
func find(program string) (string, error) {
	for _, dir := range filepath.SplitList(cli.SystemPath) {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("the program %s is not installed", program)
}

// run runs a program, and returns an entry with its standard output, and one with its standard error if
// there is any. The program gets none of bvctl's environment.
func run(ctx context.Context, name, program string, args ...string) []Entry {
	ctx, cancel := context.WithTimeout(ctx, programWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=" + cli.SystemPath, "LC_ALL=C.UTF-8"}
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	err := cmd.Run()
	list := []Entry{{Name: name, Content: out.Bytes(), Err: err}}
	if trouble.Len() > 0 {
		list = append(list, Entry{Name: name + ".stderr", Content: trouble.Bytes()})
	}
	return list
}

// readSysctls returns the values of sysctls, one on each line.
func readSysctls() Entry {
	e := Entry{Name: "network/sysctl.txt"}
	for _, pattern := range sysctls {
		paths, _ := filepath.Glob("/proc/sys/" + pattern) // the patterns are valid
		for _, path := range paths {
			value, err := os.ReadFile(path)
			if err != nil {
				e.Err = errors.Join(e.Err, err)
				continue
			}
			e.Content = fmt.Appendf(e.Content, "%s = %s\n", strings.TrimPrefix(path, "/proc/sys/"), bytes.TrimSpace(value))
		}
	}
	return e
}

// read returns an entry for each file that matches a pattern, with the content that change returns.
func read(pattern string, change func([]byte) ([]byte, error)) (list []Entry) {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return []Entry{{Name: filepath.Join("files", pattern), Err: err}}
	}
	for _, path := range paths {
		e := Entry{Name: filepath.Join("files", path)}
		content, err := os.ReadFile(path)
		if err == nil {
			content, err = change(content)
		}
		e.Content, e.Err = content, err
		list = append(list, e)
	}
	return list
}

// secret matches the keys of a network configuration whose values are left out: secrets, and names of
// containers and domains that no test needs.
var secret = regexp.MustCompile(`(?i)token|passw|secret|credential|private|psk|auth|^aliases$|^domain$|^search$`)

// tidy returns a network configuration without the values of secret keys. A file that is not JSON is
// left out, because its secrets are unknown.
func tidy(content []byte) ([]byte, error) {
	var value any
	if err := json.Unmarshal(content, &value); err != nil {
		return nil, err
	}
	return json.MarshalIndent(withoutSecrets(value), "", "  ")
}

// tidyRecord returns a record of libcni without the values of secret keys. It decodes the
// configuration in the record.
func tidyRecord(content []byte) ([]byte, error) {
	var record map[string]any
	if err := json.Unmarshal(content, &record); err != nil {
		return nil, err
	}
	var encoded struct {
		Config []byte `json:"config"`
	}
	if err := json.Unmarshal(content, &encoded); err != nil {
		return nil, err
	}
	var conf any
	if err := json.Unmarshal(encoded.Config, &conf); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	record["config"] = conf
	return json.MarshalIndent(withoutSecrets(record), "", "  ")
}

// withoutSecrets replaces the values of secret keys.
func withoutSecrets(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, below := range v {
			if secret.MatchString(key) {
				v[key] = "left out"
			} else {
				v[key] = withoutSecrets(below)
			}
		}
	case []any:
		for i, below := range v {
			v[i] = withoutSecrets(below)
		}
	}
	return value
}
