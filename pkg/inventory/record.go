package inventory

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Record is libcni's record of an attachment: everything that ADD was given and the result. libcni
// keeps it from ADD to DEL (libcni/api.go, cachedInfo).
type Record struct {
	Container    string          `json:"containerId"`
	Config       []byte          `json:"config"`
	Interface    string          `json:"ifName"`
	Network      string          `json:"networkName"`
	Namespace    string          `json:"netns"`
	Args         [][2]string     `json:"cniArgs"`
	Capabilities map[string]any  `json:"capabilityArgs"`
	Result       json.RawMessage `json:"result"`
}

// Records reads libcni's records. damaged has an error for each record that cannot be read.
func (inv *Inventory) Records() (list []*Record, damaged []error, err error) {
	dir := filepath.Join(inv.CacheDir, "results")
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // DEL has deleted it in the meantime
		}
		r := &Record{}
		if err == nil {
			err = json.Unmarshal(b, r)
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

// readable is Records, with the damaged records reported to Warn.
func (inv *Inventory) readable() ([]*Record, error) {
	list, damaged, err := inv.Records()
	for _, d := range damaged {
		inv.Warn(d)
	}
	return list, err
}

// Pods returns the names of pods, by the attachments that libcni has recorded.
func (inv *Inventory) Pods() (map[setup.Attachment]string, error) {
	records, err := inv.readable()
	pods := map[setup.Attachment]string{}
	for _, r := range records {
		pods[r.Attachment()] = r.Pod()
	}
	return pods, err
}

// sandbox returns the path of the container's namespace in the result. libcni before 1.2, as in
// containerd 1.6 and podman 4, records it only there.
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

// Attachment returns the attachment that the record is about.
func (r *Record) Attachment() setup.Attachment {
	return setup.Attachment{Network: r.Network, Container: r.Container, Interface: r.Interface}
}

// String names the attachment for people.
func (r *Record) String() string {
	who := fmt.Sprintf("network %s, container %s", r.Network, r.Container)
	if pod := r.Pod(); pod != "" {
		who += ", pod " + pod
	}
	return who
}

// Pod returns the name of the container's pod in one line, NAMESPACE/NAME, or "".
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

// addresses returns the addresses of the result, and its routes in the main table.
func (r *Record) addresses() (addresses []netip.Prefix, routes []setup.Route) {
	var raw map[string]any
	if json.Unmarshal(r.Result, &raw) != nil {
		return nil, nil
	}
	result, err := plugin.ParseResult(raw, "")
	if err != nil {
		return nil, nil
	}
	for _, ip := range result.IPs {
		addresses = append(addresses, plugin.Prefix(ip.Address))
	}
	for _, route := range attachment.Routes(result) {
		if route.Table == nil {
			routes = append(routes, route)
		}
	}
	return addresses, routes
}

// calls returns the calls of CHECK that libcni would make of our plugins. There is none for the
// attachment of another plugin. A plugin of the type bridge is ours if the result has our port; portmap
// and firewall are ours after such a bridge.
func (r *Record) calls() (calls []*skel.CmdArgs, err error) {
	list, err := libcni.ConfListFromBytes(r.Config)
	if list, err = orSingle(list, err, r.Config); err != nil {
		return nil, err
	}
	dropIn := false
	for _, p := range list.Plugins {
		switch p.Network.Type {
		case plugin.Bridgeveth:
		case plugin.Bridge:
			if !bytes.Contains(r.Result, []byte(r.Attachment().Port())) {
				continue
			}
			dropIn = true
		case plugin.PortMap, plugin.Firewall:
			if !dropIn {
				continue
			}
		default:
			continue
		}
		call, err := r.call(list, p)
		if err != nil {
			return nil, err
		}
		calls = append(calls, call)
	}
	return calls, nil
}

// call returns the call of CHECK of one plugin of the list.
func (r *Record) call(list *libcni.NetworkConfigList, p *libcni.PluginConfig) (*skel.CmdArgs, error) {
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

// eachPart calls f with the part of each of our plugins. It continues after errors.
func (r *Record) eachPart(f func(attachment.Part) error) error {
	calls, err := r.calls()
	for _, call := range calls {
		part, failed := attachment.OpenPart(call)
		if failed == nil && part != nil {
			failed = f(part)
			part.Close()
		}
		err = errors.Join(err, failed)
	}
	return err
}

// Verify compares the attachment with what ADD has made. It changes nothing. Repair restores the
// differences on the host.
func (r *Record) Verify() (host, container error) {
	err := r.eachPart(func(p attachment.Part) error {
		onHost, inside := p.Verify()
		container = errors.Join(container, inside)
		return onHost
	})
	return err, container
}

// Missing returns what Repair would restore: see attachment.Part.
func (r *Record) Missing() (network []string, port, err error) {
	err = r.eachPart(func(p attachment.Part) error {
		ofNetwork, ofPort, err := p.Missing()
		network, port = append(network, ofNetwork...), errors.Join(port, ofPort)
		return err
	})
	return network, port, err
}

// Repair restores what the attachment has lost on the host, and returns the names of those parts.
func (r *Record) Repair() (restored []string, err error) {
	err = r.eachPart(func(p attachment.Part) error {
		more, err := p.Repair()
		restored = append(restored, more...)
		return err
	})
	return restored, err
}
