package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	machine = "0123456789abcdef0123456789abcdef"
	uuid    = "4c4c4544-0042-3510-8054-b2c04f4d4e32"
)

// identity returns the ID of a host with the given files, or the error. An empty text means that
// the file is missing.
func identity(t *testing.T, machine, uuid string) (string, error) {
	t.Helper()
	root := t.TempDir()
	for path, text := range map[string]string{machineID: machine, productUUID: uuid, bootID: "8f4f\n"} {
		path = filepath.Join(root, path)
		if text == "" {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h, err := Read(root)
	if err == nil && (h.Boot != "8f4f" || len(h.ID) != 32 || strings.Contains(h.ID, machine[:8])) {
		t.Errorf("got %+v", h)
	}
	return h.ID, err
}

func TestIdentity(t *testing.T) {
	ids := map[string]string{}
	for name, files := range map[string][2]string{
		"physical": {machine + "\n", uuid + "\n"}, "no UUID": {machine, ""},
		"copy of a virtual machine": {machine, "5" + uuid[1:]}, "other machine": {"f" + machine[1:], uuid},
	} {
		id, err := identity(t, files[0], files[1])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if other, twice := ids[id]; twice {
			t.Errorf("%s and %s have the same identity", name, other)
		}
		ids[id] = name
	}
	if id, err := identity(t, machine, strings.ToUpper(uuid)); err != nil || ids[id] != "physical" {
		t.Errorf("a UUID in capitals is another host: %s, %v", id, err)
	}
}

func TestNoIdentity(t *testing.T) {
	for _, tt := range []struct{ name, machine, want string }{
		{"missing", "", "no such file or directory; write the file by systemd-machine-id-setup"},
		{"first boot", "uninitialized\n", `/etc/machine-id has "uninitialized" instead of 32 hexadecimal digits; write the file by systemd-machine-id-setup`},
	} {
		if id, err := identity(t, tt.machine, uuid); err == nil || !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("%s: got %s, %v", tt.name, id, err)
		}
	}
}
