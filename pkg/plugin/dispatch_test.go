package plugin

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/utils"
)

// TestNames checks that the functions for names accept the same names as the CNI library.
func TestNames(t *testing.T) {
	for _, name := range []string{
		"", "a", "Z9", "a.b_c-d", ".a", "-a", "_a", "a/b", "a b", "a\n", "ä", "a:b", ".", "..", "...", "eth0", "a\tb", "a\u00a0b",
		strings.Repeat("a", 15), strings.Repeat("a", 16), strings.Repeat("ä", 8), strings.Repeat("a", 300),
	} {
		if got, want := validName(name), utils.ValidateContainerID(name) == nil; got != want {
			t.Errorf("name %q is valid: %t, and in the library: %t", name, got, want)
		}
		if got, want := CheckInterfaceName(name) == nil, utils.ValidateInterfaceName(name) == nil; got != want {
			t.Errorf("interface name %q is valid: %t, and in the library: %t", name, got, want)
		}
	}
}
