package attachment

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// errOwnNamespace means that CNI_NETNS is the host's own network namespace.
var errOwnNamespace = errors.New("this is the host's own network namespace; set CNI_NETNS to the container's, or set CNI_NETNS_OVERRIDE=1 to attach the host itself")

// Namespaces opens two network namespaces. The host's namespace is the namespace of this process.
// The container's namespace is CNI_NETNS. Errors about the container's namespace wrap
// setup.ErrNoNamespace or setup.ErrNotNamespace. If the two namespaces are the same, Namespaces
// returns an error, unless CNI_NETNS_OVERRIDE allows this.
func Namespaces(args *skel.CmdArgs) (host *setup.Host, container *setup.Namespace, err error) {
	if host, err = currentHost(); err != nil {
		return nil, nil, err
	}
	if container, err = containerOf(args, host); err != nil {
		host.Close()
		return nil, nil, err
	}
	return host, container, nil
}

// containerOf opens the container's namespace, with the same errors as Namespaces.
func containerOf(args *skel.CmdArgs, host *setup.Host) (container *setup.Namespace, err error) {
	if container, err = setup.OpenNamespace(args.Netns); err == nil && container.Same(host.Namespace) && !allowsOwn(args) {
		container.Close()
		err = fmt.Errorf("open %s: %w", args.Netns, errOwnNamespace)
	}
	if err != nil {
		return nil, fmt.Errorf("CNI_NETNS: %w", err)
	}
	return container, nil
}

// RefuseOwn returns an error if CNI_NETNS is the host's own network namespace, unless
// CNI_NETNS_OVERRIDE allows this. It is for DEL, so it accepts a namespace that no longer exists.
func RefuseOwn(args *skel.CmdArgs, host *setup.Host) error {
	container, err := setup.OpenNamespace(args.Netns)
	if err != nil {
		return nil //nolint:nilerr // the namespace does not exist any more, so nothing needs protection
	}
	defer container.Close()
	if container.Same(host.Namespace) && !allowsOwn(args) {
		return fmt.Errorf("CNI_NETNS: open %s: %w", args.Netns, errOwnNamespace)
	}
	return nil
}

// allowsOwn reports whether CNI_NETNS_OVERRIDE allows CNI_NETNS to be the host's own network
// namespace. It accepts the same values as the CNI library (containernetworking/cni, pkg/skel).
func allowsOwn(args *skel.CmdArgs) bool {
	return args.NetnsOverride == "1" || strings.EqualFold(args.NetnsOverride, "true")
}
