package leases

import (
	"net/netip"
	"testing"
)

// FuzzFilter gives any text to the option --address. The filter must accept exactly IP addresses.
func FuzzFilter(f *testing.F) {
	for _, address := range []string{"", "10.1.0.9", "fd00:1::9", "::ffff:10.1.0.9", "10.1.0.9/24", "\x00"} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want := text == ""
		if a, err := netip.ParseAddr(text); err == nil {
			want = filter{address: text}.matches(a.Unmap())
		}
		if err := (filter{address: text}).check(); (err == nil) != want {
			t.Errorf("%q: %v", text, err)
		}
	})
}
