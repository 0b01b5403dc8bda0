package attachment

import (
	"errors"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// FuzzRead reads any text as the configuration of each plugin, with its runtimeConfig and its
// prevResult, and any text as CNI_ARGS. It checks that each error has a code, and that a valid
// configuration gives a plan.
func FuzzRead(f *testing.F) {
	const plain = `{"cniVersion": "1.1.0", "name": "net", "type": "bridgeveth"`
	for _, keys := range []string{
		`}`,
		`, "bridge": "br0", "isDefaultGateway": true, "ipMasq": true, "mtu": "auto", "vlan": 7, "vlanTrunk": [{"minID": 5, "maxID": 9}], "ipam": {"type": "x"}}`,
		`, "runtimeConfig": {"mac": "02:00:00:00:00:01", "portMappings": [{"HostPort": 80, "containerPort": 80, "hostIP": "::1"}], "bandwidth": {"ingressRate": 1000000, "ingressBurst": 9}}}`,
		`, "forward": "iptables", "forwardChains": ["inet filter forward"], "forwardMark": "0x100", "sysctl": {"net.ipv4.conf.IFNAME.rp_filter": "2"}, "args": {"cni": {"mac": "02::"}}}`,
		`, "ipam": {"type": "x"}, "prevResult": {"interfaces": [{"name": "br0"}, {"name": "veth0", "mac": "fe:00:00:00:00:01"}, {"name": "eth0", "sandbox": "/x", "mac": "0a:58:0a:01:00:02"}],
			"ips": [{"interface": 2, "address": "10.1.0.2/16", "gateway": "10.1.0.1"}, {"interface": 9, "address": "fd00::2/64"}], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fe80::1"}]}}`,
		`, "prevResult": {"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.2/16", "routes": [null]}}}`,
	} {
		f.Add(plain+keys, "IgnoreUnknown=1;MAC=02:00:00:00:00:01")
	}
	f.Fuzz(func(t *testing.T, conf, envArgs string) {
		args := &skel.CmdArgs{ContainerID: "c", Netns: "/x", IfName: "eth0", Args: envArgs, StdinData: []byte(conf)}
		_, err := ReadPortMap(args)
		coded(t, err)
		_, err = ReadFirewall(args)
		coded(t, err)
		c, err := Read(args)
		if coded(t, err); err != nil {
			return
		}
		previous, err := plugin.Previous(&c.PluginConf)
		if coded(t, err); previous == nil {
			return
		}
		p := c.Port(args, nil)
		if link := existingLink(previous, p); link != "" {
			useLink(p, link)
		} else {
			previous = ownResult(previous, args.IfName)
			c.expect(p, previous)
		}
		_ = Routes(previous)
		coded(t, c.CompleteResult(previous))
		coded(t, AddHostPorts(p, c.hostPorts))
	})
}

// coded fails the test if an error has no code of CNI.
func coded(t *testing.T, err error) {
	t.Helper()
	var e *types.Error
	if err != nil && (!errors.As(err, &e) || e.Code == 0 || e.Code == types.ErrInternal) {
		t.Errorf("an error without a code: %v", err)
	}
}
