package ipam

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hostLocal makes a dataDir of the plugin host-local. Each of the given files is the reservation of
// one address.
func hostLocal(t testing.TB, files map[string]string) (dataDir string) {
	t.Helper()
	dataDir = t.TempDir()
	dir := filepath.Join(dataDir, "net")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dataDir
}

// TestImport checks that a network that is new to the store imports the reservations of host-local,
// whichever CNI verb is called first.
func TestImport(t *testing.T) {
	files := map[string]string{
		"10.0.0.2": "old\r\neth0", "fd00::2": "old\r\neth0", "10.0.0.3": "gone\r\neth0", "10.0.0.4": "ancient",
		"10.0.0.5": "", "fd00::3": "\x00\x00\x00", "last_reserved_ip.0": "10.0.0.5", "lock": "", "10.0.0.6": "rebooted\r\neth0", "10.9.0.1": "far\r\neth1",
	}
	const v4, v6 = "10.0.0.0/29", "fd00::/64"
	for _, first := range []string{"DEL", "CHECK", "GC", "ADD"} {
		t.Run(first, func(t *testing.T) {
			s := openTemp(t)
			s.HostLocal = hostLocal(t, files)
			before := time.Now().AddDate(-10, 0, 0)
			if err := os.Chtimes(filepath.Join(s.HostLocal, "net", "10.0.0.6"), before, before); err != nil {
				t.Fatal(err)
			}
			switch first {
			case "CHECK":
				held, err := s.Held(eth0("old"))
				if err != nil || addresses(held) != "10.0.0.2/32 fd00::2/128" && addresses(held) != "fd00::2/128 10.0.0.2/32" {
					t.Errorf("held: %v, %v", held, err)
				}
			case "GC":
				if err := s.ReleaseExcept("net", []Attachment{eth0("old"), eth0("ancient"), {Network: "net", Container: "far", Interface: "eth1"}}); err != nil {
					t.Fatal(err)
				}
			}
			if first != "ADD" {
				release(t, s, "gone")
			}
			expect(t, s, request(t, "old", v4, v6), "10.0.0.2/29 fd00::2/64")
			want := map[bool]string{true: "10.0.0.5/29 fd00::3/64", false: "10.0.0.3/29 fd00::3/64"}[first == "ADD"]
			expect(t, s, request(t, "new", v4, v6), want)
			release(t, s, "gone", "old")
			all, err := s.Leases("net")
			if got := addresses(all); err != nil || len(all) != 4 || !strings.Contains(got, "10.0.0.4/32") || !strings.Contains(got, "10.9.0.1/32") {
				t.Errorf("leases %s, %v", got, err)
			}
			if left := names(t, filepath.Join(s.HostLocal, "net")); len(left) != len(files) {
				t.Errorf("files of host-local: %v", left)
			}
			expect(t, s, request(t, "old", v4, v6), map[bool]string{true: "10.0.0.6/29 fd00::4/64", false: "10.0.0.5/29 fd00::4/64"}[first == "ADD"])
		})
	}
}
