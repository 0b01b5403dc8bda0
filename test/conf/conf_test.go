// Package conf tests the network configurations of the folder conf/.
package conf

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// shipped is the path from this folder to the folder conf/, which has the configurations for users.
const shipped = "../../conf/"

// TestConfigurations loads each file of conf/ as a runtime does, and checks that all verbs succeed
// with the configuration.
func TestConfigurations(t *testing.T) {
	plugins := t.TempDir()
	if err := harness.Build(plugins, "bridgeveth"); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(shipped + "*.conflist")
	if err != nil || len(files) < 6 {
		t.Fatalf("found %v: %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			setuptest.EnterHost(t)
			for _, program := range []string{"iptables", "ip6tables"} {
				setuptest.DropForward(t, program)
			}
			oldestVersion(t, file)
			list, err := libcni.ConfListFromFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if list.CNIVersion != "1.1.0" {
				t.Errorf("libcni negotiated %s, want 1.1.0", list.CNIVersion)
			}
			before := setuptest.Dump(t)
			runVerbs(t, libcni.NewCNIConfigWithCacheDir([]string{plugins}, "/run/cache", nil), list)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}

// TestNew attaches containers with configurations of "bvctl config new". For the runtimes that need
// the names of the reference plugins, the plugins have these names.
func TestNew(t *testing.T) {
	plugins := t.TempDir()
	if err := harness.Build(plugins, "bridgeveth", "bvctl"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bridge", "host-local"} {
		if err := os.Link(filepath.Join(plugins, "bridgeveth"), filepath.Join(plugins, name)); err != nil {
			t.Fatal(err)
		}
	}
	const v4, v6 = "--subnet=10.86.0.0/16", "--subnet=fd86::/64"
	for _, options := range [][]string{
		{}, {"--for=cri-o"}, {"--for=kubernetes", v4, v6, "--masq-exclude=10.0.0.0/8"}, {"--for=nerdctl", "--bridge=br7"},
		{"--for=podman", v4, v6, "--name=n", "--masquerade=false"}, {"--for=podman", v6, "--firewalld"},
	} {
		t.Run(strings.Join(options, " "), func(t *testing.T) {
			setuptest.EnterHost(t)
			if slices.Contains(options, "--firewalld") {
				startFirewalld(t)
			} else {
				setuptest.DropForward(t, "iptables")
			}
			text, err := exec.Command(filepath.Join(plugins, "bvctl"), append([]string{"config", "new"}, options...)...).Output()
			if err != nil {
				t.Fatal(err)
			}
			if err := validate(t, schema(t), string(text)); err != nil {
				t.Error(err)
			}
			list, err := libcni.ConfListFromBytes(text)
			if err != nil {
				t.Fatal(err)
			}
			runVerbs(t, libcni.NewCNIConfigWithCacheDir([]string{plugins}, "/run/cache", nil), list)
		})
	}
}

// startFirewalld starts firewalld, or skips the test if the program is missing.
func startFirewalld(t *testing.T) {
	t.Helper()
	const release = "trixie"
	if why := harness.MissingFirewalld(release); why != "" {
		t.Skip("LISTED SKIP: " + why)
	}
	harness.Firewalld(t, release)
}

// TestReadme checks that the table in conf/README.md lists every configuration file, with the
// file's subnets.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile(shipped + "README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(shipped + "*.conflist")
	if err != nil {
		t.Fatal(err)
	}
	subnet := regexp.MustCompile(`"subnet": "([^"]*)"`)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, row, found := strings.Cut(string(readme), "| `"+filepath.Base(file)+"` |")
		row, _, _ = strings.Cut(row, "\n")
		if !found {
			t.Errorf("README.md does not name %s", filepath.Base(file))
		}
		for _, match := range subnet.FindAllStringSubmatch(string(b), -1) {
			if !strings.Contains(row, match[1]) {
				t.Errorf("README.md does not say that %s uses %s", filepath.Base(file), match[1])
			}
		}
	}
}

// oldestVersion fails the test unless the file's "cniVersion" is 0.4.0, the oldest of its versions.
// A runtime that does not know the key "cniVersions" (new in CNI 1.1.0) uses "cniVersion". Such a
// runtime, for instance containerd 1.6, may fail if it does not support this version.
func oldestVersion(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		CNIVersion  string
		CNIVersions []string
	}
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	if list.CNIVersion != "0.4.0" || !slices.Contains(list.CNIVersions, list.CNIVersion) {
		t.Errorf("cniVersion is %s, of %v, want 0.4.0", list.CNIVersion, list.CNIVersions)
	}
}

// runVerbs attaches two containers and detaches them again. If the containers have addresses, it
// checks by ping that they reach each other and the gateways.
func runVerbs(t *testing.T, cni *libcni.CNIConfig, list *libcni.NetworkConfigList) {
	t.Helper()
	ctx := context.Background()
	a, b := setuptest.Container(t, "a"), setuptest.Container(t, "b")
	var attached []*libcni.RuntimeConf
	var results []*current.Result
	for name, ns := range map[string]string{"a": a.Path, "b": b.Path} {
		rt := &libcni.RuntimeConf{ContainerID: name, NetNS: ns, IfName: "eth0"}
		r, err := cni.AddNetworkList(ctx, list, rt)
		if err != nil {
			t.Fatalf("ADD: %v", err)
		}
		result, err := current.GetResult(r)
		if err != nil {
			t.Fatal(err)
		}
		attached, results = append(attached, rt), append(results, result)
		if err := cni.CheckNetworkList(ctx, list, rt); err != nil {
			t.Errorf("CHECK: %v", err)
		}
	}
	if err := cni.GetStatusNetworkList(ctx, list); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	for _, r := range results {
		for _, ip := range r.IPs {
			for _, from := range []*setup.Namespace{a, b} { // one of the two pings is to the container itself
				if !setuptest.Ping(t, from, ip.Address.IP.String()) {
					t.Errorf("%s cannot ping %s", from.Path, ip.Address.IP)
				}
			}
			if ip.Gateway != nil && !setuptest.Ping(t, a, ip.Gateway.String()) {
				t.Errorf("%s cannot ping the gateway %s", a.Path, ip.Gateway)
			}
		}
	}
	for _, rt := range attached {
		if err := cni.DelNetworkList(ctx, list, rt); err != nil {
			t.Errorf("DEL: %v", err)
		}
	}
}
