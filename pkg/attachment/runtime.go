package attachment

import (
	"errors"
	"fmt"
	"net"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// capabilities are the keys below "runtimeConfig". containerd writes the key "hostPort" as
// "HostPort". plugin.Read ignores the case of keys, so this works.
type capabilities struct {
	MAC          string        `json:"mac"`
	PortMappings []PortMapping `json:"portMappings"`
	Bandwidth    bandwidth     `json:"bandwidth"`
}

// bandwidth is the capability bandwidth (containernetworking/cni, CONVENTIONS.md). Rates are in
// bits per second, bursts are in bits. The value 0 means no limit.
type bandwidth struct {
	IngressRate  int64 `json:"ingressRate"`
	IngressBurst int64 `json:"ingressBurst"`
	EgressRate   int64 `json:"egressRate"`
	EgressBurst  int64 `json:"egressBurst"`
}

// readRuntime parses the keys runtimeConfig and args, and the variable CNI_ARGS.
func (c *Config) readRuntime(envArgs string) error {
	var asked capabilities
	var wrong error
	if len(c.RuntimeConfig) > 0 {
		wrong = plugin.Read(c.RuntimeConfig, &asked, "runtimeConfig.")
	}
	wrong = errors.Join(wrong, c.readMAC(asked.MAC, envArgs))
	var bad []error
	var err error
	c.bandwidth, bad = asked.Bandwidth.read()
	c.hostPorts, err = readHostPorts(asked.PortMappings)
	return errors.Join(append(bad, wrong, err)...)
}

// readMAC parses the MAC that the runtime requests. The runtime may set a MAC in three places. If
// several places have a MAC, readMAC uses the place that is earlier in the list below
// (containernetworking/cni, CONVENTIONS.md).
func (c *Config) readMAC(capability, envArgs string) (err error) {
	var args struct {
		CNI struct {
			MAC string `json:"mac"`
		} `json:"cni"`
	}
	if len(c.Args) > 0 {
		if err := plugin.Read(c.Args, &args, "args."); err != nil {
			return err
		}
	}
	for _, place := range []struct {
		key, value string
	}{
		{"runtimeConfig.mac", capability}, {"args.cni.mac", args.CNI.MAC}, {"CNI_ARGS: MAC", plugin.Args(envArgs)["MAC"]},
	} {
		if place.value == "" {
			continue
		}
		c.mac, err = net.ParseMAC(place.value)
		if err != nil || len(c.mac) != 6 || c.mac[0]&1 == 1 || c.mac.String() == "00:00:00:00:00:00" {
			return plugin.Errorf(types.ErrInvalidNetworkConfig, "%s: %q is no unicast MAC address; write one as 02:00:00:00:00:01", place.key, place.value)
		}
		return nil
	}
	return nil
}

// read returns the bandwidth limits, and the mistakes in their values.
func (b bandwidth) read() (limits setup.Bandwidth, bad []error) {
	for _, way := range []struct {
		key         string
		rate, burst int64
		limit       *setup.Limit
	}{
		{"runtimeConfig.bandwidth.ingress", b.IngressRate, b.IngressBurst, &limits.Ingress},
		{"runtimeConfig.bandwidth.egress", b.EgressRate, b.EgressBurst, &limits.Egress},
	} {
		switch {
		case way.rate == 0 && way.burst == 0:
		case way.rate == 0:
			bad = append(bad, fmt.Errorf("%[1]sRate: it is missing, and %[1]sBurst is %[2]d; set bits per second, or leave both out for no limit", way.key, way.burst))
		case way.rate < setup.MinRate:
			bad = append(bad, fmt.Errorf("%sRate: %d is too small; set %d bits per second or more, or leave it out for no limit", way.key, way.rate, setup.MinRate))
		case way.burst <= 0:
			bad = append(bad, fmt.Errorf("%[1]sBurst: %[2]d is too small for %[1]sRate %[3]d; set the bits that may pass at once", way.key, way.burst, way.rate))
		default:
			*way.limit = setup.Limit{Rate: uint64(way.rate), Burst: uint64(way.burst)}
		}
	}
	return limits, bad
}
