package plugin

import (
	"bytes"
	"encoding/json"
	"net"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// TestEncodeResult checks that encodeResult writes the same JSON as the CNI library. It encodes
// results with all fields, without fields, and with null in lists.
func TestEncodeResult(t *testing.T) {
	t.Parallel()
	_, four, _ := net.ParseCIDR("10.88.0.0/16")
	_, six, _ := net.ParseCIDR("fd00::/64")
	full := &current.Result{
		CNIVersion: "1.1.0",
		Interfaces: []*current.Interface{
			{Name: "br0", Mac: "02:00:00:00:00:01", Mtu: 1500},
			{Name: `e"t\h<0>&ü` + "\n", Sandbox: "/run/netns/a b", SocketPath: "/s", PciID: "00:1f.6"},
			{},
		},
		IPs: []*current.IPConfig{
			{Interface: current.Int(0), Address: net.IPNet{IP: net.IPv4(10, 88, 0, 2), Mask: four.Mask}, Gateway: net.IPv4(10, 88, 0, 1)},
			{Address: net.IPNet{IP: net.ParseIP("fd00::2"), Mask: six.Mask}},
		},
		Routes: []*types.Route{
			{Dst: *four},
			{Dst: *six, GW: net.ParseIP("fd00::1"), MTU: 1400, AdvMSS: 1360, Priority: 7, Table: current.Int(0), Scope: current.Int(253)},
		},
		DNS: types.DNS{Nameservers: []string{"10.0.0.1", "fd00::53"}, Domain: "example.org", Search: []string{"a", "b"}, Options: []string{"ndots:5"}},
	}
	for name, r := range map[string]*current.Result{
		"full": full, "empty": {CNIVersion: "1.0.0"},
		"empty lists":      {CNIVersion: "1.0.0", Interfaces: []*current.Interface{}, IPs: []*current.IPConfig{}, Routes: []*types.Route{}},
		"nothing in lists": {CNIVersion: "1.0.0", Interfaces: []*current.Interface{nil, {Name: "a"}}, IPs: []*current.IPConfig{nil, nil}, Routes: []*types.Route{nil}},
		"dns":              {CNIVersion: "1.0.0", DNS: types.DNS{Domain: "example.org"}},
	} {
		got := encodeResult(r)
		library, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(inOrder(t, got), inOrder(t, library)) {
			t.Errorf("%s: got %s, the library writes %s", name, got, library)
		}
		if got[len(got)-1] != '\n' {
			t.Errorf("%s: no newline at the end", name)
		}
	}
}

// inOrder returns JSON with its keys in alphabetical order.
func inOrder(t *testing.T, text []byte) []byte {
	t.Helper()
	var any map[string]any
	err := json.Unmarshal(text, &any)
	if err == nil {
		text, err = json.Marshal(any)
	}
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return text
}
