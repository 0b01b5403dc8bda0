package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/plugins/bridgeveth"
	"github.com/bridgeveth/bridgeveth/plugins/firewall"
	"github.com/bridgeveth/bridgeveth/plugins/portmap"
)

// record is what libcni keeps of an attachment for as long as it lasts: all that ADD was
// given, and what it returned (libcni/api.go, cachedInfo).
type record struct {
	Container    string          `json:"containerId"`
	Config       []byte          `json:"config"`
	Interface    string          `json:"ifName"`
	Network      string          `json:"networkName"`
	Namespace    string          `json:"netns"`
	Args         [][2]string     `json:"cniArgs"`
	Capabilities map[string]any  `json:"capabilityArgs"`
	Result       json.RawMessage `json:"result"`
}

// records reads those of the folder of libcni's. One that cannot be read is said on
// standard error.
func (h *host) records() ([]record, error) {
	list, damaged, err := h.readRecords()
	for _, d := range damaged {
		complain(d)
	}
	return list, err
}

// readRecords is records, with an error for each that cannot be read.
func (h *host) readRecords() (list []record, damaged []error, err error) {
	dir := filepath.Join(h.cacheDir, "results")
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its container ended just now
		}
		var r record
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			damaged = append(damaged, fmt.Errorf("%s: %w", path, err))
			continue
		}
		r.Namespace = cmp.Or(r.Namespace, r.sandbox())
		list = append(list, r)
	}
	return list, damaged, err
}

// sandbox is the path of the container's namespace by the result: libcni before 1.2, as in
// containerd 1.6 and podman 4, keeps it nowhere else.
func (r record) sandbox() string {
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

// attachment is what the record is about, as our port and our leases name it.
func (r record) attachment() setup.Attachment {
	return setup.Attachment{Network: r.Network, Container: r.Container, Interface: r.Interface}
}

// String is whose it is, in words.
func (r record) String() string {
	who := fmt.Sprintf("network %s, container %s", r.Network, r.Container)
	if pod := r.pod(); pod != "" {
		who += ", pod " + pod
	}
	return who
}

// pod is the name of the container's pod, in one line; "" if it has none.
func (r record) pod() string {
	args := map[string]string{}
	for _, a := range r.Args {
		args[a[0]] = a[1]
	}
	if args["K8S_POD_NAME"] == "" {
		return ""
	}
	return strings.NewReplacer("\n", "\uFFFD", "\t", "\uFFFD").Replace(args["K8S_POD_NAMESPACE"] + "/" + args["K8S_POD_NAME"])
}

// attached is the call of the plugin that has attached the container; nil if that is none of
// ours. A bridge is, if its result names our port.
func (r record) attached() (*skel.CmdArgs, error) {
	call, err := r.command(bridgeveth.Name)
	if call == nil && err == nil && bytes.Contains(r.Result, []byte(r.attachment().Port())) {
		return r.command(bridgeveth.Reference)
	}
	return call, err
}

// chained is a plugin of ours that adds to what bridge has made.
type chained struct {
	name   string
	check  func(*skel.CmdArgs) error
	repair func(*skel.CmdArgs) ([]string, error)
}

// behind calls f with each plugin of ours that stands in the list behind bridge, and with
// the call that it had. It goes on after errors.
func (r record) behind(f func(chained, *skel.CmdArgs) error) error {
	first, err := r.command(bridgeveth.Reference)
	if first == nil {
		return err
	}
	for _, p := range []chained{{portmap.Name, portmap.Check, portmap.Repair}, {firewall.Name, firewall.Check, firewall.Repair}} {
		call, failed := r.command(p.name)
		if call != nil && failed == nil {
			failed = f(p, call)
		}
		err = errors.Join(err, failed)
	}
	return err
}

// verify says what is not as ADD has left it, by ours and by plugins of ours behind it: on the
// host, which repair puts back, and inside of the container.
func (r record) verify(call *skel.CmdArgs) (host, inside error) {
	host, inside = bridgeveth.Verify(call)
	return errors.Join(host, r.behind(func(p chained, call *skel.CmdArgs) error { return p.check(call) })), inside
}

// lost is what repair puts back, of the network and of the port.
func (r record) lost(call *skel.CmdArgs) (network []string, port, err error) {
	network, port, err = bridgeveth.Lost(call)
	otherwise := r.behind(func(p chained, call *skel.CmdArgs) error { port = errors.Join(port, p.check(call)); return nil })
	return network, port, errors.Join(err, otherwise)
}

// repair puts back what an attachment lacks, by the call that has attached it. Where that is
// of bridge, portmap and firewall behind it are ours too.
func (r record) repair(call *skel.CmdArgs) (mended []string, err error) {
	mended, err = bridgeveth.Repair(call)
	otherwise := r.behind(func(p chained, call *skel.CmdArgs) error {
		more, err := p.repair(call)
		mended = append(mended, more...)
		return err
	})
	return mended, errors.Join(err, otherwise)
}

// command is a call of a plugin of the list, as libcni would make it for CHECK; nil if the
// list does not have the plugin.
func (r record) command(plugin string) (*skel.CmdArgs, error) {
	list, err := libcni.ConfListFromBytes(r.Config)
	if list, err = orSingle(list, err, r.Config); err != nil {
		return nil, err
	}
	for _, p := range list.Plugins {
		if p.Network.Type != plugin {
			continue
		}
		asked := map[string]any{}
		for name, supported := range p.Network.Capabilities {
			if data, ok := r.Capabilities[name]; ok && supported {
				asked[name] = data
			}
		}
		conf, err := libcni.InjectConf(p, map[string]any{"name": list.Name, "cniVersion": list.CNIVersion, "prevResult": r.Result, "runtimeConfig": asked})
		if err != nil {
			return nil, err
		}
		args := make([]string, 0, len(r.Args))
		for _, a := range r.Args {
			args = append(args, a[0]+"="+a[1])
		}
		return &skel.CmdArgs{
			ContainerID: r.Container, Netns: r.Namespace, IfName: r.Interface, Args: strings.Join(args, ";"), StdinData: conf.Bytes,
		}, nil
	}
	return nil, nil //nolint:nilnil // as documented
}
