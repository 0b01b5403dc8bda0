// Package plugin is the edge between CNI and our plugins, the same for each of
// them: it starts the verbs, prints errors as the specification asks, knows the
// error codes, and reads configurations so that a misspelt key is noticed.
package plugin

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

// Version is the release that this build was made from; the linker sets it.
var Version = "devel"

// A call waits for locks that others hold no longer than lockWait, all waits together, and what
// takes a failed ADD back no longer than undoWait more. So it ends, with an error that names
// the holder, before a runtime gives up: CRI-O after 30 s for GC of all networks, CRI-O and
// containerd after a minute for DEL, kubelet after four minutes for a pod.
const lockWait, undoWait = 20 * time.Second, 5 * time.Second

// Main runs one CNI command as the plugin called name, of a version such as v1.2.3, and
// returns the exit status. It reads CNI_* from the environment and the network configuration
// from standard input, and prints one JSON object, a result or an error, on
// standard output. Without a command it says who it is on standard error, in the words of
// the reference plugins, which programs read.
//
// skel does the most of it. What is added: errors carry cniVersion, and VERSION
// answers with the version it was asked in (CNI specification 1.1.0, "Error"
// and "VERSION"), where skel leaves out the one and ignores the other.
func Main(name, release string, verbs skel.CNIFuncs) int {
	growStack()
	flock.Limit(lockWait, undoWait)
	// A plugin lives for milliseconds, short enough to finish what it began: only
	// SIGKILL ends it half-way. A reader that is gone becomes an error of the
	// write, which undoes the ADD.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGPIPE)

	var stdin configuration
	if os.Getenv("CNI_COMMAND") != "" {
		var err error
		if stdin, err = io.ReadAll(os.Stdin); err != nil {
			return stdin.fail(Errorf(types.ErrIOFailure, "read configuration from standard input: %w", err))
		}
		if os.Stdin, err = refill(stdin); err != nil {
			return stdin.fail(Errorf(types.ErrIOFailure, "pass on the configuration: %w", err))
		}
	}
	verbs.Add, verbs.Del = unchecked(verbs.Add), unchecked(verbs.Del)
	info := versionInfo{version.All, stdin}
	if err := skel.PluginMainFuncsWithError(verbs, info, "CNI "+name+" plugin "+release); err != nil {
		if err.Code == types.ErrInvalidEnvironmentVariables { // skel does not say what the values are
			err.Details = fmt.Sprintf("CNI_COMMAND=%q CNI_CONTAINERID=%q CNI_NETNS=%q CNI_IFNAME=%q CNI_PATH=%q; %s", os.Getenv("CNI_COMMAND"),
				os.Getenv("CNI_CONTAINERID"), os.Getenv("CNI_NETNS"), os.Getenv("CNI_IFNAME"), os.Getenv("CNI_PATH"), err.Details)
		}
		if os.Getenv("CNI_COMMAND") == "DEL" {
			err.Msg, err.Details = toBeRetried.Replace(err.Msg), toBeRetried.Replace(err.Details)
		}
		return stdin.fail(err)
	}
	return 0
}

// toBeRetried keeps words out of the errors of DEL by which containerd takes one that
// failed for done, and never calls it again (github.com/containerd/go-cni, Remove).
var toBeRetried = strings.NewReplacer("not found", "missing", "no such file or directory", "it is missing")

// unchecked keeps skel from looking, once the verb is done and has printed its result,
// whether CNI_NETNS is the plugin's own namespace: an error would then come second on
// standard output, and of what is done already.
func unchecked(verb func(*skel.CmdArgs) error) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) error {
		defer func() { args.NetnsOverride = "true" }() // the verb reads what the caller has set
		return verb(args)
	}
}

// refill returns a file to read data from: skel insists on reading the
// configuration from os.Stdin itself.
func refill(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("network configuration", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "network configuration")
	if _, err := f.WriteAt(data, 0); err != nil {
		return nil, err
	}
	return f, nil
}

// configuration is that of the network, as it came.
type configuration []byte

// version is the cniVersion that it names, and the latest where it names none. Errors and the
// answer to VERSION are told in it; nothing else pays for reading it once more.
func (c configuration) version() string {
	var conf struct {
		CNIVersion string `json:"cniVersion"`
	}
	if json.Unmarshal(c, &conf) == nil && conf.CNIVersion != "" {
		return conf.CNIVersion // else skel reports what is wrong with it
	}
	return version.Current()
}

// fail prints e on standard output, where libcni looks for it.
func (c configuration) fail(e *types.Error) int {
	out := struct {
		CNIVersion string `json:"cniVersion"`
		*types.Error
	}{c.version(), e}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		fmt.Fprintln(os.Stderr, e)
	}
	return 1
}

// versionInfo is version.All, which answers VERSION in the version asked.
type versionInfo struct {
	version.PluginInfo
	asked configuration
}

// Encode prints the answer to VERSION.
func (v versionInfo) Encode(w io.Writer) error {
	return json.NewEncoder(w).Encode(struct {
		CNIVersion        string   `json:"cniVersion"`
		SupportedVersions []string `json:"supportedVersions"`
	}{v.asked.version(), v.SupportedVersions()})
}

// growStack makes room on the stack for all that follows, by a frame that large which nothing
// uses. Otherwise the runtime copies the stack four times on the way down and looks up each
// caller's frame, which takes 1 % of an ADD.
//
//go:noinline
func growStack() {
	if len(os.Args) > 0 {
		return // always
	}
	var room [24 << 10]byte
	_, _ = os.Stdin.Read(room[:])
}
