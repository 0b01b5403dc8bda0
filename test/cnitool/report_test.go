package cnitool

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/attack"
)

// report runs bvctl doctor --report, and returns the files of the archive and what bvctl printed on
// standard error.
func report(t *testing.T, args ...string) (files map[string]string, said string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.tar.gz")
	cmd := exec.Command(filepath.Join(programs, "bvctl"), append([]string{"doctor", "--conf-dir", "/run/net.d", "--report", path}, args...)...)
	cmd.Env = append(os.Environ(), "API_TOKEN=secret-of-the-environment")
	var trouble strings.Builder
	cmd.Stderr = &trouble
	if out, err := cmd.Output(); err != nil {
		t.Fatalf("%v: %s%s", err, out, trouble.String())
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, mode %v, want 0600", err, info.Mode())
	}
	zipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	for archive := tar.NewReader(zipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, trouble.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil || header.Mode != 0o600 {
			t.Errorf("%s: %v, mode %o", header.Name, err, header.Mode)
		}
		files[strings.TrimPrefix(header.Name, "bridgeveth-report/")] = string(content)
	}
}

// TestReport checks the archive of bvctl doctor --report, without and with --mask. In a masked
// archive, no real name or address may be left.
func TestReport(t *testing.T) {
	t.Parallel()
	conf := object{"type": "bridgeveth", "bridge": "brshop0", "isDefaultGateway": true, "ipMasq": true, "ipspoofchk": true,
		"ipam": object{"type": "ipam-simple", "ranges": [][]object{{{"subnet": "10.88.0.0/24"}}, {{"subnet": "fd88:12:34::/64"}}}}}
	n := newNode(t, conf, "nft")
	for name, list := range map[string]object{
		"20-shop":  {"cniVersion": "1.1.0", "name": "shopnet", "plugins": []object{conf}},
		"30-other": {"cniVersion": "1.1.0", "name": "vault-net", "plugins": []object{{"type": "other", "token": "secret-of-a-file"}}},
	} {
		b, err := json.Marshal(list)
		if err == nil {
			err = os.WriteFile("/run/net.d/"+name+".conflist", b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	setuptest.Run(t, "sh", "-c", "echo {broken >/run/net.d/40-broken.conf; echo secret-of-the-host >/run/net.d/kubeconfig")
	setuptest.Run(t, "ip", "link", "add", "wan77", "up", "type", "veth", "peer", "name", "wan77peer")
	setuptest.Run(t, "ip", "address", "add", "198.51.100.77/24", "dev", "wan77")
	setuptest.Run(t, "ip", "link", "set", "wan77", "alias", "to rack seventeen")
	for _, command := range []string{
		"nft add table ip gone", "nft add chain ip gone rules", `nft add rule ip gone rules iifname "gone1" oifname != "gone2" accept`,
		"iptables -A FORWARD -i gone3 ! -o gone4 -j ACCEPT",
	} {
		setuptest.Run(t, "sh", "-c", command)
	}
	c := setuptest.Container(t, "cni-5d1f")
	n.env = []string{"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=payments;K8S_POD_NAME=checkout-7f"}
	if err := n.cnitoolOn("shopnet", "add", c); err != nil {
		t.Fatal(err)
	}
	setuptest.Run(t, "iptables", "-A", "FORWARD", "-m", "comment", "--comment", "bazaar/till:http cluster IP", "-d", "203.0.113.9", "-j", "ACCEPT")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	records, err := filepath.Glob("/var/lib/cni/results/shopnet-cnitool-*")
	if err != nil || len(records) != 1 {
		t.Fatalf("%v: %v", err, records)
	}
	id := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(records[0]), "shopnet-"), "-eth0")
	real := []string{
		"shopnet", "vault-net", "brshop0", id, "payments", "checkout-7f", "cni-5d1f", "wan77", "wan77peer", "bazaar", "till", "gone1", "gone2", "gone3", "gone4", "rack seventeen",
		"10.88.0.0/24", "10.88.0.1", "10.88.0.2", "fd88:12:34::2", "fd88:12:34::/64", "0xfd880012003400000000000000000002", "198.51.100.77", "203.0.113.9",
		attack.MACOf(t, c, "eth0").String(), attack.MACOf(t, n.Namespace, "brshop0").String(), strings.TrimSpace(setuptest.Run(t, "sh", "-c", "ls /sys/class/net/brshop0/brif | head -1")),
	}
	plain, said := report(t)
	masked, _ := report(t, "--mask")
	whole := func(files map[string]string) string {
		text := ""
		for name, content := range files {
			text += name + "\n" + content
		}
		return text
	}
	for _, name := range real {
		if !strings.Contains(whole(plain), name) {
			t.Errorf("the archive without masks lacks %s", name)
		}
	}
	for _, name := range append(real, host) {
		pattern := regexp.MustCompile(`.*\b` + regexp.QuoteMeta(name) + `\b.*`) // the name of a host may be part of another word
		if found := pattern.FindString(whole(masked)); found != "" {
			t.Errorf("the archive with masks has %s: %s", name, found)
		}
	}
	for _, secret := range []string{"secret-of-the-environment", "secret-of-a-file", "secret-of-the-host"} {
		if strings.Contains(whole(plain), secret) {
			t.Errorf("the archive has %s", secret)
		}
	}
	for _, want := range []string{
		"contents.txt", "doctor.txt", "doctor.json", "inspect.json", "leases.json", "leases-check.txt", "metrics.txt", "versions/kernel.txt", "versions/nft.txt",
		"versions/bvctl.txt", "rules/nft.txt", "rules/iptables.txt", "rules/ip6tables.txt", "network/link.txt", "network/route.txt", "network/sysctl.txt", "files/run/net.d/20-shop.conflist", "files" + records[0],
	} {
		if plain[want] == "" {
			t.Errorf("%s is missing or empty", want)
		}
	}
	for _, want := range []string{"without versions/crio.txt: the program crio is not installed\n", "without files/run/net.d/40-broken.conf: invalid character 'b'", "written; look through it"} {
		if !strings.Contains(said, want) {
			t.Errorf("bvctl does not say %q: %s", want, said)
		}
	}
	// One real name has the same mask everywhere, and addresses of one subnet stay in one subnet.
	var list []struct {
		Container, Pod, Bridge string
		Addresses              []netip.Prefix
	}
	if err := json.Unmarshal([]byte(masked["inspect.json"]), &list); err != nil || len(list) != 1 || len(list[0].Addresses) != 2 {
		t.Fatalf("%v: %s", err, masked["inspect.json"])
	}
	var shop struct {
		Plugins []struct {
			Bridge string
			IPAM   struct {
				Ranges [][]struct{ Subnet netip.Prefix }
			}
		}
	}
	if err := json.Unmarshal([]byte(masked["files/run/net.d/20-shop.conflist"]), &shop); err != nil || len(shop.Plugins) != 1 {
		t.Fatalf("%v: %s", err, masked["files/run/net.d/20-shop.conflist"])
	}
	if p := shop.Plugins[0]; p.Bridge != list[0].Bridge || !strings.Contains(masked["network/link.txt"], ": "+p.Bridge+":") {
		t.Errorf("the bridge is %s in the configuration, %s in inspect.json", p.Bridge, list[0].Bridge)
	}
	for i, r := range shop.Plugins[0].IPAM.Ranges {
		if !r[0].Subnet.Contains(list[0].Addresses[i].Addr()) || r[0].Subnet != list[0].Addresses[i].Masked() {
			t.Errorf("%v is not in %v", list[0].Addresses[i], r[0].Subnet)
		}
	}
	for name := range masked {
		if strings.HasPrefix(name, "files/var/lib/cni/") && !strings.Contains(name, list[0].Container) {
			t.Errorf("the record %s does not have the name %s", name, list[0].Container)
		}
	}
	if !strings.Contains(masked["doctor.txt"], list[0].Pod) {
		t.Errorf("doctor.txt does not have the pod %s: %s", list[0].Pod, masked["doctor.txt"])
	}
	// Without --report, --mask has no effect.
	if a := bvctlCall("doctor", "--mask").run(t); a.err == nil || !strings.Contains(string(a.stderr), "set --report too") {
		t.Errorf("--mask without --report: %v: %s", a.err, a.stderr)
	}
}
