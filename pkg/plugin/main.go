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

	"github.com/bridgeveth/bridgeveth/pkg/counters"
	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

// Version is the release of this build. The linker sets it.
var Version = "devel"

// lockWait is the longest time that one CNI call waits for locks, in total. undoWait is additional
// time for ADD to undo its steps after a failure. When this time is over, the call returns an error
// that names the process with the lock. Runtimes wait longer for a call, so they get this error:
// CRI-O waits half a minute for GC of all networks, CRI-O and containerd a minute for DEL, and
// kubelet four minutes for a pod.
const lockWait, undoWait = 20 * time.Second, 5 * time.Second

// Main runs one CNI command as the plugin with this name, and returns the exit status of the
// process. The parameter release is a version such as v1.2.3. Main reads CNI_* from the environment
// and the network configuration from standard input. It prints a result or an error as one JSON
// object on standard output. Without CNI_COMMAND, it prints the name and the release on standard
// error. Other programs parse this line, so it has the format of the reference plugins.
//
// The package skel of the CNI library does most of this. Main adds cniVersion to errors, and
// answers VERSION with the cniVersion of the request (CNI specification 1.1.0, "Error" and
// "VERSION").
func Main(name, release string, verbs skel.CNIFuncs) int {
	start := time.Now()
	growStack()
	flock.Limit(lockWait, undoWait)
	// A call takes only milliseconds, so it ignores the signals that ask it to end. Only SIGKILL
	// ends it. Because SIGPIPE is ignored too, a write to a closed standard output returns an
	// error, and ADD undoes its steps.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGPIPE)

	var stdin configuration
	if os.Getenv("CNI_COMMAND") != "" {
		var err error
		if stdin, err = io.ReadAll(os.Stdin); err != nil {
			return stdin.fail(Errorf(types.ErrIOFailure, "read configuration from standard input: %w", err))
		}
		if os.Stdin, err = refill(stdin); err != nil {
			return stdin.fail(Errorf(types.ErrIOFailure, "copy the configuration: %w", err))
		}
	}
	verbs.Add, verbs.Del = unchecked(verbs.Add), unchecked(verbs.Del)
	info := versionInfo{version.All, stdin}
	err := skel.PluginMainFuncsWithError(verbs, info, "CNI "+name+" plugin "+release)
	if os.Getenv("CNI_COMMAND") == "ADD" && IsBridgeveth(name) {
		count(start, err)
	}
	if err != nil {
		if err.Code == types.ErrInvalidEnvironmentVariables { // skel's error does not contain the values of the variables
			err.Details = fmt.Sprintf("CNI_COMMAND=%q CNI_CONTAINERID=%.200q CNI_NETNS=%q CNI_IFNAME=%q CNI_PATH=%q; %s", os.Getenv("CNI_COMMAND"),
				os.Getenv("CNI_CONTAINERID"), os.Getenv("CNI_NETNS"), os.Getenv("CNI_IFNAME"), os.Getenv("CNI_PATH"), err.Details)
		}
		if os.Getenv("CNI_COMMAND") == "DEL" {
			err.Msg, err.Details = toBeRetried.Replace(err.Msg), toBeRetried.Replace(err.Details)
		}
		return stdin.fail(err)
	}
	return 0
}

// count adds an ADD to the host's counters, if the node agent has created the file of the counters.
func count(start time.Time, err *types.Error) {
	var code uint
	if err != nil {
		code = err.Code
	}
	_ = counters.Add(counters.Path, time.Since(start), code) // an error here must not make ADD fail
}

// toBeRetried replaces phrases in the errors of DEL. If an error contained such a phrase,
// containerd would treat the DEL as successful and would not call it again
// (github.com/containerd/go-cni, Remove).
var toBeRetried = strings.NewReplacer("not found", "missing", "no such file or directory", "it is missing")

// unchecked switches off a check that skel makes after the verb: CNI_NETNS must not be the plugin's
// own network namespace. The verb has already printed its result, so the error of skel would be a
// second JSON object on standard output.
func unchecked(verb func(*skel.CmdArgs) error) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) error {
		defer func() { args.NetnsOverride = "true" }() // set after the verb has run, because the verb reads the caller's value
		return verb(args)
	}
}

// refill returns an open file that contains data. Main replaces os.Stdin by this file, because skel
// reads the configuration from os.Stdin.
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

// configuration is the network configuration that Main has read from standard input.
type configuration []byte

// version returns the key cniVersion of the configuration, or the newest CNI version if the key is
// missing. It decodes the configuration a second time, but is called only for errors and for the
// answer to VERSION.
func (c configuration) version() string {
	var conf struct {
		CNIVersion string `json:"cniVersion"`
	}
	if json.Unmarshal(c, &conf) == nil && conf.CNIVersion != "" {
		return conf.CNIVersion
	}
	return version.Current()
}

// fail prints the error e on standard output, where libcni reads it, and returns the exit status.
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

// versionInfo is the answer to VERSION. It has the cniVersion of the request. The supported
// versions are those of the CNI library (version.All).
type versionInfo struct {
	version.PluginInfo
	asked configuration
}

// Encode writes the answer to VERSION.
func (v versionInfo) Encode(w io.Writer) error {
	return json.NewEncoder(w).Encode(struct {
		CNIVersion        string   `json:"cniVersion"`
		SupportedVersions []string `json:"supportedVersions"`
	}{v.asked.version(), v.SupportedVersions()})
}

// growStack grows the stack once, because this function has a large frame. Otherwise the Go runtime
// would copy the stack four times during a call, which takes 1 % of an ADD.
//
//go:noinline
func growStack() {
	if len(os.Args) > 0 {
		return // the function always returns here; the stack has already grown for the variable room
	}
	var room [24 << 10]byte
	_, _ = os.Stdin.Read(room[:])
}
