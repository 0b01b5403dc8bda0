package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// CmdArgs are the parameters of a CNI command (CNI specification 1.1.0, "Parameters"). The names of
// the fields are those in the package skel of the CNI library.
type CmdArgs struct {
	ContainerID, Netns, IfName, Args, Path string
	NetnsOverride                          string // CNI_NETNS_OVERRIDE
	StdinData                              []byte // the network configuration
}

// Verbs are the functions of a plugin, one for each CNI command.
type Verbs struct{ Add, Check, Del, GC, Status func(*CmdArgs) error }

// verb is a CNI command.
type verb struct {
	call     func(*CmdArgs) error
	since    string   // the first CNI version with the command
	requires []string // environment variables
}

// dispatch reads the parameters of a CNI command from the environment and checks them. Then it calls
// the verb. It does the work of the package skel of the CNI library. The plugins do not link skel,
// because skel links regexp, which takes 4 % of the start of ipam-simple.
func dispatch(command string, verbs Verbs, stdin []byte) error {
	args := &CmdArgs{
		ContainerID: os.Getenv("CNI_CONTAINERID"), Netns: os.Getenv("CNI_NETNS"), IfName: os.Getenv("CNI_IFNAME"), Args: os.Getenv("CNI_ARGS"),
		Path: os.Getenv("CNI_PATH"), NetnsOverride: os.Getenv("CNI_NETNS_OVERRIDE"), StdinData: stdin,
	}
	v, known := map[string]verb{
		"ADD":    {verbs.Add, "0.1.0", []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"}},
		"CHECK":  {verbs.Check, "0.4.0", []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"}},
		"DEL":    {verbs.Del, "0.1.0", []string{"CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"}},
		"GC":     {verbs.GC, "1.1.0", []string{"CNI_PATH"}},
		"STATUS": {verbs.Status, "1.1.0", []string{"CNI_PATH"}},
	}[command]
	if err := v.checkEnvironment(args); err != nil {
		return err
	}
	asked, err := checkConfiguration(stdin)
	switch {
	case err != nil:
		return err
	case !known:
		return Errorf(types.ErrInvalidEnvironmentVariables, "unknown CNI_COMMAND: %s", command)
	case !slices.Contains(version.All.SupportedVersions(), asked):
		return types.NewError(types.ErrIncompatibleCNIVersion, "incompatible CNI versions", fmt.Sprintf("config is %q, plugin supports %q", asked, version.All.SupportedVersions()))
	}
	if allowed, err := version.GreaterThanOrEqualTo(asked, v.since); err != nil || !allowed {
		return Errorf(types.ErrIncompatibleCNIVersion, "config version does not allow %s", command)
	}
	if v.call == nil {
		return nil // the plugin has nothing to do for the command
	}
	return v.call(args)
}

// checkEnvironment checks that the variables which the verb requires are set, and that the names in
// them are valid. It does not check a name that the verb does not require.
func (v verb) checkEnvironment(args *CmdArgs) error {
	if slices.Contains(v.requires, "CNI_CONTAINERID") && args.ContainerID != "" && !validName(args.ContainerID) {
		return types.NewError(types.ErrInvalidEnvironmentVariables, "invalid characters in containerID", args.ContainerID)
	}
	if slices.Contains(v.requires, "CNI_IFNAME") && args.IfName != "" {
		if wrong := CheckInterfaceName(args.IfName); wrong != nil {
			return Errorf(types.ErrInvalidEnvironmentVariables, "%w", wrong)
		}
	}
	missing := slices.DeleteFunc(slices.Clone(v.requires), func(name string) bool { return os.Getenv(name) != "" })
	if len(missing) > 0 {
		return Errorf(types.ErrInvalidEnvironmentVariables, "required env variables [%s] missing", strings.Join(missing, ","))
	}
	return nil
}

// checkConfiguration checks the name of the network, and returns the CNI version of the configuration.
func checkConfiguration(stdin []byte) (cniVersion string, err error) {
	var conf struct {
		Name       string `json:"name"`
		CNIVersion string `json:"cniVersion"`
	}
	switch err := json.Unmarshal(stdin, &conf); {
	case err != nil:
		return "", Errorf(types.ErrDecodingFailure, "network configuration: %w", err)
	case conf.Name == "":
		return "", Errorf(types.ErrInvalidNetworkConfig, "missing network name")
	case !validName(conf.Name):
		return "", types.NewError(types.ErrInvalidNetworkConfig, "invalid characters found in network name", conf.Name)
	case conf.CNIVersion == "": // libcni uses this version for a configuration without cniVersion
		return "0.1.0", nil
	}
	return conf.CNIVersion, nil
}

// validName reports whether a name of a container or network is valid (CNI specification 1.1.0,
// "Parameters"): letters, digits, and after the first character also ".", "_" and "-".
func validName(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return name != "" && strings.Contains(letters, name[:1]) && strings.Trim(name, letters+"._-") == ""
}

// maxInterfaceName is IFNAMSIZ-1 in linux/if.h: the greatest length of a link's name, in bytes.
const maxInterfaceName = 15

// CheckInterfaceName returns an error if a link cannot have the name (dev_valid_name in
// net/core/dev.c), or if the name contains a colon.
func CheckInterfaceName(name string) error {
	switch {
	case name == "":
		return errors.New("interface name is empty")
	case len(name) > maxInterfaceName:
		return fmt.Errorf("interface name is too long (more than %d characters)", maxInterfaceName)
	case name == "." || name == "..":
		return errors.New("interface names . and .. are not allowed")
	case strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r == ':' || unicode.IsSpace(r) }):
		return errors.New("interface name contains / or : or whitespace characters")
	}
	return nil
}
