package cli

import (
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// FuzzMatches looks for a container with any name.
func FuzzMatches(f *testing.F) {
	for _, name := range []string{"", "c1", "c", "10.1.0.2", "fd00::1", "\x00", "/proc/self/ns/net"} {
		f.Add(name)
	}
	c := &inventory.Container{}
	c.Attachment = setup.Attachment{Network: "net", Container: "c1", Interface: "eth0"}
	f.Fuzz(func(t *testing.T, name string) {
		if kind := matches(c, name); kind != noMatch && (name == "" || !strings.HasPrefix("c1", name) && name != c.Pod) {
			t.Errorf("container c1 matches %q", name)
		}
	})
}
