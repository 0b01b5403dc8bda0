package attachment

import (
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// Validate returns the mistakes for which ADD would refuse the configuration of a plugin, except
// those below "ipam". The text of the error has one line for each mistake. For a plugin that is not
// in this project, Validate returns nil.
func Validate(args *skel.CmdArgs) (wrong error) {
	var conf types.PluginConf
	if err := plugin.Read(args.StdinData, &conf, ""); err != nil {
		return err
	}
	switch {
	case plugin.IsBridgeveth(conf.Type):
		_, wrong = read(args)
	case conf.Type == plugin.PortMap:
		_, wrong = readPortMap(args)
	case conf.Type == plugin.Firewall:
		_, wrong = readFirewall(args)
	}
	return wrong
}

// ValidateResult returns the error of ADD if the IPAM plugin returned the given addresses.
func ValidateResult(args *skel.CmdArgs, addresses []Address) error {
	c, err := read(args)
	if err != nil {
		return err
	}
	return c.CompleteResult(resultOf(addresses))
}

// resultOf returns the result of an IPAM plugin that has returned the given addresses.
func resultOf(addresses []Address) *current.Result {
	r := &current.Result{}
	for _, a := range addresses {
		r.IPs = append(r.IPs, &current.IPConfig{Address: plugin.IPNet(a.Prefix), Gateway: a.Gateway.AsSlice()})
	}
	return r
}
