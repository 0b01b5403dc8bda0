package ranges

import (
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// compareAddresses makes cmp.Diff compare addresses by the operator ==.
var compareAddresses = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// parseRange returns the range that a text describes. The text is a subnet, optionally followed by
// start, end and gateway. The word "-" leaves a field empty.
func parseRange(t testing.TB, text string) (r Range) {
	t.Helper()
	words := strings.Fields(text)
	r.Subnet = netip.MustParsePrefix(words[0])
	for i, field := range []*netip.Addr{&r.Start, &r.End, &r.Gateway} {
		if i+1 < len(words) && words[i+1] != "-" {
			*field = netip.MustParseAddr(words[i+1])
		}
	}
	return r
}

// complete parses a text like parseRange, and completes the range.
func complete(t testing.TB, text string) Range {
	t.Helper()
	r, bad := parseRange(t, text).Complete()
	if bad != nil {
		t.Fatalf("%s: %v", text, bad)
	}
	return r
}

func TestComplete(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		size     uint64
	}{
		{"10.1.0.0/16", "10.1.0.0/16 10.1.0.1 10.1.255.254 10.1.0.1", 65533},
		{"10.1.0.0/24 10.1.0.10 10.1.0.20", "10.1.0.0/24 10.1.0.10 10.1.0.20 10.1.0.1", 11},
		{"10.1.0.0/24 10.1.0.10 10.1.0.20 10.1.0.15", "10.1.0.0/24 10.1.0.10 10.1.0.20 10.1.0.15", 10},
		{"10.1.0.0/24 - - 10.1.0.254", "10.1.0.0/24 10.1.0.1 10.1.0.254 10.1.0.254", 253},
		{"10.1.0.0/24 10.1.0.0 10.1.0.255", "10.1.0.0/24 10.1.0.1 10.1.0.254 10.1.0.1", 253}, // host-local also accepts the network address and the broadcast address
		{"10.1.0.4/30", "10.1.0.4/30 10.1.0.5 10.1.0.6 10.1.0.5", 1},
		{"10.1.0.4/31", "10.1.0.4/31 10.1.0.4 10.1.0.5 10.1.0.5", 1},
		{"10.1.0.4/32", "10.1.0.4/32 10.1.0.4 10.1.0.4 -", 1},
		{"255.255.255.252/30", "255.255.255.252/30 255.255.255.253 255.255.255.254 255.255.255.253", 1},
		{"10.1.0.4/32 - - 10.9.0.1", "10.1.0.4/32 10.1.0.4 10.1.0.4 10.9.0.1", 1},
		{"10.1.0.0/24 - - 10.9.0.1", "10.1.0.0/24 10.1.0.1 10.1.0.254 10.9.0.1", 254},
		{"fd00::/125 - - fe80::1", "fd00::/125 fd00::1 fd00::7 fe80::1", 7},
		{"fd00::/64", "fd00::/64 fd00::1 fd00::ffff:ffff:ffff:ffff fd00::1", math.MaxUint64 - 1},
		{"fd00::/56", "fd00::/56 fd00::1 fd00:0:0:ff:ffff:ffff:ffff:ffff fd00::1", math.MaxUint64},
		{"fd00::/125", "fd00::/125 fd00::1 fd00::7 fd00::1", 6},
		{"fd00::2/127", "fd00::2/127 fd00::2 fd00::3 fd00::3", 1},
		{"fd00::2/128", "fd00::2/128 fd00::2 fd00::2 -", 1},
		{"ffff::/16", "ffff::/16 ffff::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff::1", math.MaxUint64},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got := complete(t, tt.in)
			if diff := cmp.Diff(parseRange(t, tt.want), got, compareAddresses); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Size() != tt.size {
				t.Errorf("size %d, want %d", got.Size(), tt.size)
			}
		})
	}
}

func TestCompleteErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   Range
		want []string
	}{
		{"empty", Range{}, []string{"subnet: it is missing; give one, such as 10.1.0.0/16"}},
		{"host bits", parseRange(t, "10.1.0.7/24"), []string{"subnet: 10.1.0.7/24 has host bits set; write 10.1.0.0/24"}},
		{"mapped", parseRange(t, "::ffff:10.1.0.0/112"), []string{"subnet: ::ffff:10.1.0.0/112 is an IPv4-mapped IPv6 subnet; write it as 10.1.0.0/16"}},
		{"all at once", parseRange(t, "10.1.0.7/24 10.2.0.1 10.1.1.0 10.1.0.0"), []string{
			"subnet: 10.1.0.7/24 has host bits set; write 10.1.0.0/24",
			"rangeStart: 10.2.0.1 is not a usable address of subnet 10.1.0.0/24; give an address from 10.1.0.1 to 10.1.0.254",
			"rangeEnd: 10.1.1.0 is not a usable address of subnet 10.1.0.0/24; give an address from 10.1.0.1 to 10.1.0.254",
			"gateway: 10.1.0.0 is not a usable address of subnet 10.1.0.0/24; give an address from 10.1.0.1 to 10.1.0.254",
		}},
		{"other family", parseRange(t, "10.1.0.0/24 fd00::1"), []string{
			"rangeStart: fd00::1 is not a usable address of subnet 10.1.0.0/24; give an address from 10.1.0.1 to 10.1.0.254",
		}},
		{"zone", parseRange(t, "fe80::/64 - - fe80::1%eth0"), []string{
			"gateway: fe80::1%eth0 is not a usable address of subnet fe80::/64; give an address from fe80::1 to fe80::ffff:ffff:ffff:ffff",
		}},
		{"start after end", parseRange(t, "10.1.0.0/24 10.1.0.20 10.1.0.10"), []string{"rangeStart: 10.1.0.20 comes after rangeEnd, 10.1.0.10; swap them"}},
		{"only the gateway", parseRange(t, "10.1.0.0/24 10.1.0.1 10.1.0.1"), []string{
			"gateway: 10.1.0.1 is the only address of the range, so no address is left for containers; widen the range",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, bad := tt.in.Complete()
			var got []string
			for _, err := range bad {
				got = append(got, err.Error())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// parseIntervals parses each text as an interval.
func parseIntervals(t testing.TB, texts ...string) (list []Interval) {
	t.Helper()
	for _, text := range texts {
		s, err := ParseInterval(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

func TestParseInterval(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.0.9":             "10.1.0.9-10.1.0.9",
		"10.1.0.64/28":         "10.1.0.64-10.1.0.79",
		"10.1.0.9-10.1.0.20":   "10.1.0.9-10.1.0.20",
		"10.1.0.9 - 10.1.0.20": "10.1.0.9-10.1.0.20",
		"fd00::/126":           "fd00::-fd00::3",
		"fd00::1-fd00::1":      "fd00::1-fd00::1",
		"":                     "", "ten": "", "10.1.0.65/28": "", "10.1.0.9-": "", "10.1.0.9-10.1.0.8": "",
		"10.1.0.9-fd00::1": "", "fe80::1%eth0": "", "10.1.0.0/33": "", "1-2-3": "",
	} {
		got, err := ParseInterval(text)
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("%q: got %s, %v, want %q", text, got, err, want)
		}
	}
}

func TestSplit(t *testing.T) {
	list := func(texts ...string) []string { return texts }
	for _, tt := range []struct {
		name, in        string
		exclude, static []string
		want            string
	}{
		{"nothing", "10.1.0.0/24", nil, nil, "10.1.0.1-10.1.0.254"},
		{"in the middle", "10.1.0.0/24", list("10.1.0.64/28"), nil, "10.1.0.1-10.1.0.63 10.1.0.80-10.1.0.254"},
		{"both ends", "10.1.0.0/24", list("10.1.0.250-10.1.0.255", "10.1.0.0/29"), nil, "10.1.0.8-10.1.0.249"},
		{"nested and adjacent", "10.1.0.0/24", list("10.1.0.10-10.1.0.20", "10.1.0.12", "10.1.0.21"), nil, "10.1.0.1-10.1.0.9 10.1.0.22-10.1.0.254"},
		{"next to the gateway", "10.1.0.0/24", list("10.1.0.2-10.1.0.9"), nil, "10.1.0.10-10.1.0.254"},
		{"the last IPv6 address", "ffff::/16 ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0", list("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff8/125"), nil,
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff7"},
		{"static inside the range", "10.1.0.0/24", nil, list("10.1.0.10-10.1.0.19"), "10.1.0.1-10.1.0.9 10.1.0.20-10.1.0.254 on request 10.1.0.10-10.1.0.19"},
		{"static outside the range", "10.1.0.0/24 10.1.0.100", nil, list("10.1.0.0-10.1.0.49"), "error"},
		{"static outside the range, some excluded", "10.1.0.0/24 10.1.0.100", list("10.1.0.20"), list("10.1.0.10-10.1.0.49"),
			"10.1.0.100-10.1.0.254 on request 10.1.0.10-10.1.0.19 on request 10.1.0.21-10.1.0.49"},
		{"excluded outside the subnet", "10.1.0.0/24", list("10.2.0.0/24"), nil, "error"},
		{"static of the other family", "10.1.0.0/24", nil, list("fd00::1"), "error"},
		{"everything", "10.1.0.0/24", list("10.1.0.0/24"), nil, "error"},
		{"all but the gateway", "10.1.0.0/24", list("10.1.0.2-10.1.0.99"), list("10.1.0.100-10.1.0.254"), "error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, bad := complete(t, tt.in).Split(parseIntervals(t, tt.exclude...), parseIntervals(t, tt.static...))
			var got []string
			for _, r := range set {
				if r.OnRequest {
					got = append(got, "on request")
				}
				got = append(got, r.String())
			}
			if bad != nil {
				got = []string{"error"}
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("%v (-want +got):\n%s", bad, diff)
			}
		})
	}
}

func TestOverlaps(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"10.1.0.0/24", "10.1.0.0/24", true},
		{"10.1.0.0/16", "10.1.7.0/24", true},
		{"10.1.0.0/24", "10.1.1.0/24", false},
		{"10.1.0.0/24 10.1.0.2 10.1.0.9", "10.1.0.0/24 10.1.0.9 10.1.0.20", true},
		{"10.1.0.0/24 10.1.0.2 10.1.0.8", "10.1.0.0/24 10.1.0.9 10.1.0.20", false},
		{"0.0.0.0/1", "fd00::/64", false},
	} {
		a, b := complete(t, tt.a), complete(t, tt.b)
		if a.Overlaps(b) != tt.want || b.Overlaps(a) != tt.want {
			t.Errorf("%s, %s: want %v", tt.a, tt.b, tt.want)
		}
	}
}
