package ipam

import (
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// parseRange makes a range of its fields as text; empty ones are left open.
func parseRange(t testing.TB, subnet, start, end, gateway string) (r Range) {
	t.Helper()
	if subnet != "" {
		r.Subnet = netip.MustParsePrefix(subnet)
	}
	for text, to := range map[*netip.Addr]string{&r.Start: start, &r.End: end, &r.Gateway: gateway} {
		if to != "" {
			*text = netip.MustParseAddr(to)
		}
	}
	return r
}

func TestComplete(t *testing.T) {
	for _, tt := range []struct {
		subnet, start, end, gateway string
		want                        string // range, gateway, size
		size                        uint64
		bad                         []string
	}{
		{subnet: "10.1.0.0/16", want: "10.1.0.1-10.1.255.254 10.1.0.1", size: 65533},
		{subnet: "10.1.0.0/30", want: "10.1.0.1-10.1.0.2 10.1.0.1", size: 1},
		{subnet: "10.1.0.0/24", start: "10.1.0.10", end: "10.1.0.19", want: "10.1.0.10-10.1.0.19 10.1.0.1", size: 10},
		{subnet: "10.1.0.0/24", start: "10.1.0.10", end: "10.1.0.19", gateway: "10.1.0.12", want: "10.1.0.10-10.1.0.19 10.1.0.12", size: 9},
		{subnet: "fd00::/64", want: "fd00::1-fd00::ffff:ffff:ffff:ffff fd00::1", size: math.MaxUint64 - 1},
		{subnet: "fd00::/48", want: "fd00::1-fd00::ffff:ffff:ffff:ffff:ffff fd00::1", size: math.MaxUint64},
		{subnet: "fd00::/126", want: "fd00::1-fd00::3 fd00::1", size: 2},
		{bad: []string{"subnet: it is missing"}},
		{subnet: "10.1.2.3/16", bad: []string{"subnet: 10.1.2.3/16 has host bits set; write 10.1.0.0/16"}},
		{subnet: "10.1.0.0/31", bad: []string{"subnet: 10.1.0.0/31 is too small", "at most 30"}},
		{subnet: "fd00::/127", bad: []string{"at most 126"}},
		{subnet: "10.1.0.0/24", start: "10.2.0.1", end: "fd00::1", gateway: "10.3.0.1", bad: []string{
			"rangeStart: 10.2.0.1 is outside subnet 10.1.0.0/24", "rangeEnd: fd00::1 is outside", "gateway: 10.3.0.1 is outside",
		}},
		{subnet: "10.1.0.0/24", start: "10.1.0.9", end: "10.1.0.8", bad: []string{"rangeStart: 10.1.0.9 comes after rangeEnd, 10.1.0.8"}},
		{subnet: "10.1.0.0/24", start: "10.1.0.1", end: "10.1.0.1", bad: []string{"gateway: 10.1.0.1 is the only address"}},
	} {
		t.Run(tt.subnet+" "+tt.start+" "+tt.end, func(t *testing.T) {
			r, errs := parseRange(t, tt.subnet, tt.start, tt.end, tt.gateway).Complete()
			if len(tt.bad) == 0 {
				if got := r.String() + " " + r.Gateway.String(); len(errs) > 0 || got != tt.want || r.Size() != tt.size {
					t.Errorf("got %s of %d, %v; want %s of %d", got, r.Size(), errs, tt.want, tt.size)
				}
				return
			}
			var all []string
			for _, err := range errs {
				all = append(all, err.Error())
			}
			for _, want := range tt.bad {
				if !strings.Contains(strings.Join(all, "\n"), want) {
					t.Errorf("%q is not in %q", want, all)
				}
			}
		})
	}
}

func TestOverlaps(t *testing.T) {
	a, _ := parseRange(t, "10.1.0.0/24", "10.1.0.10", "10.1.0.19", "").Complete()
	for _, tt := range []struct {
		subnet, start, end string
		want               bool
	}{
		{"10.1.0.0/24", "10.1.0.19", "10.1.0.30", true},
		{"10.1.0.0/24", "10.1.0.20", "10.1.0.30", false},
		{"10.1.0.0/16", "", "", true},
		{"fd00::/64", "", "", false},
	} {
		b, _ := parseRange(t, tt.subnet, tt.start, tt.end, "").Complete()
		if diff := cmp.Diff([]bool{tt.want, tt.want}, []bool{a.Overlaps(b), b.Overlaps(a)}); diff != "" {
			t.Errorf("%s and %s (-want +got):\n%s", a, b, diff)
		}
	}
}
