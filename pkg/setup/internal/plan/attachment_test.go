package plan

import "testing"

// FuzzAlias parses any text as the alias of a link. It checks that the attachment in a valid alias
// has the same alias again, and that no alias is too long for the kernel.
func FuzzAlias(f *testing.F) {
	for _, alias := range []string{"", "bridgeveth", "bridgeveth/net/c/eth0", "bridgeveth/net/c/eth0/", "bridgeveth///", "other/net/c/eth0", "bridgeveth/n\n/c/eth0"} {
		f.Add(alias)
	}
	f.Fuzz(func(t *testing.T, alias string) {
		a, ok := ParseAttachment(alias)
		if ok && a.String() != alias || !ok && a != (Attachment{}) {
			t.Errorf("%q became %+v", alias, a)
		}
		if len(a.Network)+len(a.Interface) <= MaxNetwork+15 && len(a.Alias()) > maxAlias {
			t.Errorf("alias of %d bytes", len(a.Alias()))
		}
		if !IsPort(a.Port()) {
			t.Errorf("port %q", a.Port())
		}
	})
}
