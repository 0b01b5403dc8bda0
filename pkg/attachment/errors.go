package attachment

import (
	"errors"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// codes maps errors of pkg/setup to CNI error codes. If an error wraps several of these errors, the
// earliest entry in this list selects the code.
var codes = []struct {
	err  error
	code uint
}{
	{setup.ErrNoNamespace, types.ErrInvalidNetNS},
	{setup.ErrNotNamespace, types.ErrInvalidNetNS},
	{errOwnNamespace, types.ErrInvalidNetNS},
	{setup.ErrNotBridge, plugin.CodeTaken},
	{setup.ErrAlternativeName, plugin.CodeTaken},
	{setup.ErrRenamed, plugin.CodeTaken},
	{setup.ErrTaken, plugin.CodeTaken},
	{setup.ErrNewer, plugin.CodeTaken},
	{setup.ErrAttached, plugin.CodeTaken},
	{setup.ErrAddressConflict, plugin.CodeTaken},
	{unix.EEXIST, plugin.CodeTaken},
	{setup.ErrNoVLANs, plugin.CodeTaken},
	{setup.ErrNoFlowtables, types.ErrInvalidNetworkConfig},
	{setup.ErrNoLink, types.ErrInvalidNetworkConfig},
	{setup.ErrBridgeFull, plugin.CodeExhausted},
	{setup.ErrNoIPTables, plugin.CodeProgram},
	{setup.ErrNoFirewalld, plugin.CodeProgram},
	{setup.ErrStrictForwardPorts, types.ErrInvalidNetworkConfig},
	{setup.ErrNoChain, types.ErrInvalidNetworkConfig},
	{setup.ErrDenied, types.ErrLimitedConnectivity},
	{setup.ErrBridgeGone, types.ErrTryAgainLater},
	{setup.ErrTablesGone, types.ErrTryAgainLater},
	{setup.ErrChanging, types.ErrTryAgainLater},
	{flock.ErrTimeout, types.ErrTryAgainLater},
}

// Error returns err with a CNI error code. The variable codes lists the codes. If it has no entry
// for err, the code is plugin.CodeKernel. An error that already has a code keeps this code. If err
// is nil, Error returns nil.
func Error(err error) error {
	if err == nil {
		return nil
	}
	code := plugin.CodeKernel
	if taken := (*setup.PortTakenError)(nil); errors.As(err, &taken) {
		code = plugin.CodeTaken
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			code = c.code
			break
		}
	}
	return plugin.Errorf(code, "%w", err)
}
