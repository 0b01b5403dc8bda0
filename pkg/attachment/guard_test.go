package attachment

import (
	"testing"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// TestGuardOfIPAM checks the default guard of an isolated network for each kind of IPAM plugin. The
// guard checks IP addresses only if the IPAM plugin assigns all addresses of a container. Otherwise
// it checks only MAC addresses.
func TestGuardOfIPAM(t *testing.T) {
	for _, tt := range []struct {
		name, keys string
		want       setup.Guard
	}{
		{"host-local", `"ingressPolicy": "isolated", "ipam": {"type": "host-local"}`, setup.GuardIP},
		{"dhcp", `"ingressPolicy": "isolated", "ipam": {"type": "dhcp"}`, setup.GuardMAC},
		{"dhcp, checked by address", `"ingressPolicy": "isolated", "ipspoofchk": true, "ipam": {"type": "dhcp"}`, setup.GuardIP},
		{"none", `"ingressPolicy": "isolated"`, setup.GuardMAC},
		{"host-local, same bridge", `"ingressPolicy": "same-bridge", "ipam": {"type": "host-local"}`, setup.GuardNone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Read(&skel.CmdArgs{StdinData: []byte(`{"cniVersion": "1.1.0", "name": "net", "type": "bridgeveth", ` + tt.keys + `}`)})
			if err != nil {
				t.Fatal(err)
			}
			if got := c.guard(); got != tt.want {
				t.Errorf("got guard %v, want %v", got, tt.want)
			}
			if got, want := c.autoconfigured(), c.IPAM.Type != "host-local" && tt.want != setup.GuardIP; got != want {
				t.Errorf("autoconfigured: got %v, want %v", got, want)
			}
		})
	}
}
