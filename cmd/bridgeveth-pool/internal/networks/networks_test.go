package networks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const ipam = `{"type": "ipam-simple", "subnet": "10.1.0.0/16", "pool": {"etcd": {"endpoints": ["http://10.0.0.1:2379"]}}}`

// write makes a folder with files, and returns its path.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFolder(t *testing.T) {
	list, err := Folder(write(t, map[string]string{
		"10-a.conflist":   `{"name": "a", "cniVersion": "1.1.0", "plugins": [{"type": "bridgeveth", "ipam": ` + ipam + `}, {"type": "tuning"}]}`,
		"20-b.conf":       `{"name": "b", "type": "macvlan", "ipam": ` + ipam + `}`,
		"30-again.conf":   `{"name": "b", "type": "macvlan", "ipam": ` + ipam + `}`,
		"40-local.conf":   `{"name": "c", "type": "bridgeveth", "ipam": {"type": "ipam-simple", "subnet": "10.2.0.0/16"}}`,
		"50-other.conf":   `{"name": "d", "type": "bridge", "ipam": {"type": "other", "pool": "x"}}`,
		"60-layer2.conf":  `{"name": "e", "type": "bridgeveth"}`,
		"70-a.conf.saved": `{"name": "f"`,
	}))
	if err != nil || len(list) != 2 || list[0].Name != "a" || list[1].Name != "b" {
		t.Fatalf("got %v, %v, want the networks a and b", list, err)
	}
	if c := list[0]; c.Version != "1.1.0" || c.Pool.Block != 26 || c.Pool.Spare != 1 || c.Pool.Server.Prefix != "/bridgeveth" || len(c.Sets) != 1 {
		t.Errorf("got %+v", c)
	}
}

// TestMistakes checks that a mistake in one file does not hide the networks of other files.
func TestMistakes(t *testing.T) {
	list, err := Folder(write(t, map[string]string{
		"10-a.conf": `{"name": "a", "type": "bridgeveth", "ipam": ` + ipam + `}`,
		"20-b.conf": `{"name": "b", "type": "bridgeveth", "ipam": ` + strings.Replace(ipam, `"etcd"`, `"block": 8, "etcd"`, 1) + `}`,
		"30-c.conf": `{"name": "a", "type": "bridgeveth", "ipam": ` + strings.Replace(ipam, "2379", "2380", 1) + `}`,
		"40-d.conf": `{"name": "d"`,
		"50-e.conf": `{"name": "../e", "type": "bridgeveth", "ipam": ` + ipam + `}`,
	}))
	if len(list) != 1 || list[0].Name != "a" || err == nil {
		t.Fatalf("got %v, %v, want the network a", list, err)
	}
	for _, want := range []string{
		"20-b.conf: network b: ipam.pool.block: /8 is no part of subnet 10.1.0.0/16; give a number from 16 to 32",
		"30-c.conf: another file has another pool for network a; give each network a name of its own",
		"40-d.conf: the configuration is no JSON object", `50-e.conf: name: "../e": `,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not contain %s", err, want)
		}
	}
}
