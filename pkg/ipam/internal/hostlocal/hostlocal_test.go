package hostlocal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLeases reads any text as a file of host-local. It checks that a reservation has a holder, and
// that a file with zero bytes is no reservation.
func FuzzLeases(f *testing.F) {
	for name, text := range map[string]string{"10.1.0.2": "c\r\neth0", "fd00::2": "c", "::ffff:10.1.0.3": "c\neth0\nmore", "10.1.0.4": "\x00\x00", "lock": "", "last_reserved_ip.0": "10.1.0.9"} {
		f.Add(name, []byte(text))
	}
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
			return // no name of a file
		}
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "net"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "net", name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := Leases(dir, "net")
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range list {
			if l.Container == "" || l.Interface == "" || !l.Address.IsValid() || strings.ContainsAny(l.Container+l.Interface, "\x00\n ") {
				t.Errorf("%q with %q: %+v", name, text, l)
			}
		}
	})
}
