package cnicache

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/bridgeveth/bridgeveth/pkg/files"
)

// DefaultDir is the folder in which libcni stores its records by default (CacheDir in
// libcni/api.go).
const DefaultDir = "/var/lib/cni"

// kind is the format of the records (CNICacheV1 in libcni/api.go).
const kind = "cniCacheV1"

// Record is what libcni stores about an attachment: the arguments of ADD, and its result.
type Record struct {
	Kind         string          `json:"kind"`
	Container    string          `json:"containerId"`
	Config       []byte          `json:"config"` // configuration of the plugin list, or of a single plugin
	Interface    string          `json:"ifName"`
	Network      string          `json:"networkName"`
	Namespace    string          `json:"netns"` // path of the container's network namespace
	Args         [][2]string     `json:"cniArgs"`
	Capabilities map[string]any  `json:"capabilityArgs"`
	Result       json.RawMessage `json:"result"` // in the CNI version that the runtime uses, from 0.1.0 to the newest

	Written time.Time `json:"-"`
}

// Read returns the records in the folder dir: the records of one network, or all records if network
// is "". The result damaged has an error for each file that cannot be read. If another user can change
// the folder, the error is files.ErrShared.
func Read(dir, network string) (records []*Record, damaged []error, err error) {
	dir = filepath.Join(dir, "results")
	if err := files.CheckFolder(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	entries, err := os.ReadDir(dir)
	for _, f := range entries {
		if network != "" && !strings.HasPrefix(f.Name(), network+"-") { // files are named NETWORK-CONTAINER-INTERFACE
			continue
		}
		r, err := read(filepath.Join(dir, f.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // a DEL has deleted the file in the meantime
		case err != nil:
			damaged = append(damaged, fmt.Errorf("%s: %w", filepath.Join(dir, f.Name()), err))
		case network == "" || network == r.Network:
			records = append(records, r)
		}
	}
	return records, damaged, err
}

func read(path string) (*Record, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &Record{Written: info.ModTime()}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, err
	}
	if r.Kind != "" && r.Kind != kind {
		return nil, fmt.Errorf("its kind is %q, and this release of bridgeveth reads only %q; install a newer release", r.Kind, kind)
	}
	if r.Container == "" || r.Interface == "" || r.Network == "" {
		return nil, errors.New("it names no attachment: containerId, ifName or networkName is missing")
	}
	r.Namespace = cmp.Or(r.Namespace, r.sandbox())
	return r, nil
}

// sandbox returns the path of the container's network namespace from the result of ADD. libcni
// before version 1.2 records the path only in this result. containerd 1.6 and podman 4 use such a
// libcni.
func (r *Record) sandbox() string {
	var result struct {
		Interfaces []struct {
			Name    string `json:"name"`
			Sandbox string `json:"sandbox"`
		} `json:"interfaces"`
	}
	if json.Unmarshal(r.Result, &result) == nil {
		for _, i := range result.Interfaces {
			if i.Name == r.Interface && i.Sandbox != "" {
				return i.Sandbox
			}
		}
	}
	return ""
}

// ParseResult returns the recorded result, converted to the newest CNI version.
func (r *Record) ParseResult() (*current.Result, error) {
	result, err := create.CreateFromBytes(r.Result)
	if err != nil {
		return nil, err
	}
	return current.NewResultFromResult(result)
}

// Pod returns the name of the container's pod as NAMESPACE/NAME, or "" if the container belongs to
// no pod. It replaces line breaks and tabs, which would damage a printed table.
func (r *Record) Pod() string {
	args := map[string]string{}
	for _, a := range r.Args {
		args[a[0]] = a[1]
	}
	if args["K8S_POD_NAME"] == "" {
		return ""
	}
	return strings.NewReplacer("\n", "\uFFFD", "\t", "\uFFFD").Replace(args["K8S_POD_NAMESPACE"] + "/" + args["K8S_POD_NAME"])
}

// String returns the name of the attachment for messages.
func (r *Record) String() string {
	who := fmt.Sprintf("network %s, container %s", r.Network, r.Container)
	if pod := r.Pod(); pod != "" {
		who += ", pod " + pod
	}
	return who
}
