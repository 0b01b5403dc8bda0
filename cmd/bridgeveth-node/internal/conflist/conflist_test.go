package conflist

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var values = Values{
	Ranges:       []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")},
	NoMasquerade: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00::/56")},
	MTU:          1450,
}

func TestComplete(t *testing.T) {
	for _, tt := range []struct{ name, base, want string }{
		{"all keys", `{"name": "n", "plugins": [{"type": "bridgeveth"}]}`, `{
  "name": "n",
  "plugins": [
    {
      "ipam": {
        "ranges": [
          [
            {
              "subnet": "10.244.1.0/24"
            }
          ],
          [
            {
              "subnet": "fd00:1::/64"
            }
          ]
        ],
        "type": "ipam-simple"
      },
      "masqExclude": [
        "10.244.0.0/16",
        "fd00::/56"
      ],
      "mtu": 1450,
      "type": "bridgeveth"
    }
  ]
}
`},
		{"an administrator's keys and plugins", `{"name": "n", "x": 12345678901234567890, "plugins": [{"type": "first"},
			{"type": "bridge", "mtu": 1280, "masqExclude": ["192.168.0.0/16", "fd00::/56"], "ipam": {"type": "ipam-simple", "sticky": "1h"}}, {"type": "tuning"}]}`, `{
  "name": "n",
  "plugins": [
    {
      "type": "first"
    },
    {
      "ipam": {
        "ranges": [
          [
            {
              "subnet": "10.244.1.0/24"
            }
          ],
          [
            {
              "subnet": "fd00:1::/64"
            }
          ]
        ],
        "sticky": "1h",
        "type": "ipam-simple"
      },
      "masqExclude": [
        "192.168.0.0/16",
        "fd00::/56",
        "10.244.0.0/16"
      ],
      "mtu": 1280,
      "type": "bridge"
    },
    {
      "type": "tuning"
    }
  ],
  "x": 12345678901234567890
}
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := parse([]byte(tt.base))
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the base does not change
				got, err := b.Complete(values)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, string(got)); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			}
		})
	}
}

func TestBadBase(t *testing.T) {
	for _, tt := range []struct{ name, base, want string }{
		{"no JSON", `{"name": `, "not JSON"},
		{"no name", `{"plugins": [{"type": "bridgeveth"}]}`, "name: missing"},
		{"another plugin", `{"name": "n", "plugins": [{"type": "ptp"}]}`, `plugins: no plugin has "type": "bridgeveth"`},
		{"ranges", `{"name": "n", "plugins": [{"type": "bridgeveth", "ipam": {"ranges": [[]]}}]}`, "ipam.ranges: [[]] is the same on every node"},
		{"subnet", `{"name": "n", "plugins": [{"type": "bridgeveth", "ipam": {"subnet": "10.1.0.0/24"}}]}`, "ipam.subnet: 10.1.0.0/24 is the same"},
		{"ipam", `{"name": "n", "plugins": [{"type": "bridgeveth", "ipam": "x"}]}`, "ipam: x is not an object"},
		{"masqExclude", `{"name": "n", "plugins": [{"type": "bridgeveth", "masqExclude": ["x"]}]}`, "masqExclude: x is not a subnet"},
		{"masqExclude, no list", `{"name": "n", "plugins": [{"type": "bridgeveth", "masqExclude": "10.0.0.0/8"}]}`, "masqExclude: 10.0.0.0/8 is not a list"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "base")
			if err := os.WriteFile(path, []byte(tt.base), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := ReadBase(path); err == nil || !strings.HasPrefix(err.Error(), "base configuration "+path+": "+tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestStandard completes the built-in base.
func TestStandard(t *testing.T) {
	b, err := ReadBase("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Complete(values); err != nil || b.Bridge() != "cni0" {
		t.Errorf("bridge %s, %v", b.Bridge(), err)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	plain := File{Path: filepath.Join(dir, "net.d", "10-x.conflist")}
	volatile := File{plain.Path, filepath.Join(dir, "run", "x")}
	inode := func(path string) uint64 {
		t.Helper()
		var s unix.Stat_t
		if err := unix.Lstat(path, &s); err != nil {
			t.Fatal(err)
		}
		return s.Ino
	}
	write := func(f File, text string, want bool) {
		t.Helper()
		if changed, err := f.Write([]byte(text)); changed != want || err != nil {
			t.Errorf("changed %v, %v", changed, err)
		}
		if got, err := os.ReadFile(f.Path); string(got) != text || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if entries, err := os.ReadDir(filepath.Dir(f.Path)); len(entries) != 1 || err != nil {
			t.Errorf("files: %v, %v", entries, err)
		}
	}
	for _, f := range []File{plain, volatile, plain} { // and one in place of the other
		write(f, "a", true)
		first := inode(f.Path)
		write(f, "a", false)
		if inode(f.Path) != first {
			t.Error("written although nothing changed")
		}
		write(f, "b", true)
		if inode(f.Path) == first {
			t.Error("changed in place: a runtime may read half of it, or miss the change")
		}
		// What an agent leaves that is killed before it renames.
		if err := os.WriteFile(filepath.Join(dir, "net.d", ".10-x.conflist.new"), []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
		write(f, "c", true)
	}
	write(volatile, "c", true)
	if err := os.RemoveAll(filepath.Join(dir, "run")); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(volatile.Path); err == nil {
		t.Errorf("still there after a reboot: %s", text)
	}
	write(volatile, "c", true)
	for _, want := range []bool{true, false} {
		if removed, err := volatile.Remove(); removed != want || err != nil {
			t.Errorf("removed %v, %v", removed, err)
		}
	}
}

func TestAhead(t *testing.T) {
	dir := t.TempDir()
	f := File{Path: filepath.Join(dir, "10-bridgeveth.conflist")}
	for _, name := range []string{"05-kindnet.conflist", "10-a.conf", "10-b.json", "10-bridgeveth.conflist", "10-a.bak", "20-late.conflist", ".10-bridgeveth.conflist.new"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.Ahead()
	if want := []string{"05-kindnet.conflist", "10-a.conf", "10-b.json"}; !slices.Equal(got, want) || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}
