package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

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
// process. release is a version such as v1.2.3. Main reads CNI_* from the environment and the
// network configuration from standard input. It prints a result or an error as one JSON object on
// standard output. Without CNI_COMMAND, it prints the name and the release on standard error. Other
// programs parse this line, so it has the format of the reference plugins.
//
// Main prints errors and the answer to VERSION with the cniVersion of the request (CNI specification
// 1.1.0, "Error" and "VERSION").
func Main(name, release string, verbs Verbs) int {
	start := time.Now()
	growStack()
	flock.Limit(lockWait, undoWait)
	// A call takes only milliseconds, so it ignores the signals that ask it to end. Only SIGKILL
	// ends it. Because SIGPIPE is ignored too, a write to a closed standard output returns an
	// error, and ADD undoes its steps.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGPIPE)

	command := os.Getenv("CNI_COMMAND")
	if command == "" {
		fmt.Fprintf(os.Stderr, "CNI %s plugin %s\nCNI protocol versions supported: %s\n", name, release, strings.Join(version.All.SupportedVersions(), ", "))
		return 0
	}
	stdin, err := io.ReadAll(os.Stdin)
	switch {
	case err != nil:
		err = Errorf(types.ErrIOFailure, "read configuration from standard input: %w", err)
	case command == "VERSION":
		if err = configuration(stdin).printVersions(); err != nil {
			err = Errorf(types.ErrIOFailure, "print the answer to VERSION: %w", err)
		}
	default:
		err = dispatch(command, verbs, stdin)
	}
	failed := coded(err)
	if command == "ADD" && IsBridgeveth(name) {
		count(start, failed)
	}
	if failed == nil {
		return 0
	}
	if failed.Code == types.ErrInvalidEnvironmentVariables { // the message does not contain the values of the variables
		failed.Details = fmt.Sprintf("CNI_COMMAND=%q CNI_CONTAINERID=%q CNI_NETNS=%q CNI_IFNAME=%q CNI_PATH=%q; %s", command,
			os.Getenv("CNI_CONTAINERID"), os.Getenv("CNI_NETNS"), os.Getenv("CNI_IFNAME"), os.Getenv("CNI_PATH"), failed.Details)
	}
	if command == "DEL" {
		failed.Msg, failed.Details = toBeRetried.Replace(failed.Msg), toBeRetried.Replace(failed.Details)
	}
	return configuration(stdin).fail(failed)
}

// coded returns err as a CNI error, with the code for internal errors if it has no code. It returns
// nil for nil.
func coded(err error) *types.Error {
	var e *types.Error
	if err != nil && !errors.As(err, &e) {
		e = types.NewError(types.ErrInternal, err.Error(), "")
	}
	return e
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

// printVersions prints the answer to VERSION, with the cniVersion of the request. The supported
// versions are those of the CNI library (version.All).
func (c configuration) printVersions() error {
	return json.NewEncoder(os.Stdout).Encode(struct {
		CNIVersion        string   `json:"cniVersion"`
		SupportedVersions []string `json:"supportedVersions"`
	}{c.version(), version.All.SupportedVersions()})
}

// growStack grows the stack once, because this function has a large frame. Otherwise the Go runtime
// would copy the stack four times during a call, which takes 1 % of an ADD.
//
//go:noinline
func growStack() {
	if len(os.Args) > 0 {
		return // this always returns, but the compiler does not know it and grows the stack for room
	}
	var room [24 << 10]byte
	_, _ = os.Stdin.Read(room[:])
}
