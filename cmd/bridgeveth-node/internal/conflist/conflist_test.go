package conflist

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
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
		{"all keys", `{"name": "n", "plugins": [{"type": "bridgeveth", "ipMasq": true}]}`, `{
  "name": "n",
  "plugins": [
    {
      "ipMasq": true,
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
			{"type": "bridge", "ipMasq": true, "mtu": 1280, "masqExclude": ["192.168.0.0/16", "fd00::/56"], "ipam": {"type": "ipam-simple", "sticky": "1h"}}, {"type": "tuning"}]}`, `{
  "name": "n",
  "plugins": [
    {
      "type": "first"
    },
    {
      "ipMasq": true,
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
		{"nothing is masqueraded", `{"name": "n", "plugins": [{"type": "bridgeveth", "ipam": {"type": "dhcp"}}]}`, `{
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
        "type": "dhcp"
      },
      "mtu": 1450,
      "type": "bridgeveth"
    }
  ]
}
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := parse([]byte(tt.base))
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // Complete must not change the base
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
		{"part of a range", `{"name": "n", "plugins": [{"type": "bridgeveth", "ipam": {"exclude": ["10.1.0.9"]}}]}`, "ipam.exclude: [10.1.0.9] is the same"},
		{"unknown key", `{"name": "n", "plugins": [{"type": "bridgeveth", "brigde": "cni0"}]}`, "network n: brigde: "},
		{"value of a key", `{"name": "n", "plugins": [{"type": "bridgeveth", "forward": "yes"}]}`, "network n: forward: "},
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

// TestStandard checks the configuration that Complete returns for the built-in base configuration.
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
	for _, f := range []File{plain, volatile, plain} { // each File replaces the previous one, which is of the other kind
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
		// A killed agent may leave this temporary file.
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

func TestForeign(t *testing.T) {
	dir := t.TempDir()
	f := File{Path: filepath.Join(dir, "10-bridgeveth.conflist")}
	for name, text := range map[string]string{
		"05-kindnet.conflist":    `{"plugins": [{"type": "ptp", "ipam": {"ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]]}}, {"type": "portmap"}]}`,
		"10-a.conf":              `{"type": "bridge", "bridge": "other0", "ipam": {"type": "host-local", "subnet": "10.8.0.5/24"}}`,
		"10-b.json":              "{",
		"10-bridgeveth.conflist": `{"plugins": [{"type": "bridgeveth", "ipam": {"subnet": "10.7.0.0/24"}}]}`,
		"10-a.bak":               `{"type": "bridge", "ipam": {"subnet": "10.6.0.0/24"}}`,
		"20-old.conflist":        `{"plugins": [{"type": "bridge", "ipam": {"subnet": "10.5.0.0/24"}}]}`,
		"87-podman.conflist":     `{"plugins": [{"type": "bridge", "bridge": "cni-podman0", "ipam": {"subnet": "10.88.0.0/16"}}]}`,

		".10-bridgeveth.conflist.new": `{"plugins": [{"type": "bridgeveth", "ipam": {"subnet": "10.7.0.0/24"}}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list, err := f.Foreign("cni0")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range list {
		got = append(got, fmt.Sprint(o))
	}
	want := []string{
		"{05-kindnet.conflist true [10.9.0.0/24 fd00:9::/64]}", "{10-a.conf true [10.8.0.0/24]}", "{10-b.json true []}", "{20-old.conflist false [10.5.0.0/24]}",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
