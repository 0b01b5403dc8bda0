package attachment

import (
	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Valid returns the attachments of a network that GC must keep. See plugin.ValidAttachments.
func Valid(network string, args *skel.CmdArgs) (valid []setup.Attachment, err error) {
	listed, err := plugin.ValidAttachments(args.StdinData)
	for _, a := range listed {
		valid = append(valid, setup.Attachment{Network: network, Container: a.ContainerID, Interface: a.IfName})
	}
	return valid, err
}
