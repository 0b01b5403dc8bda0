package cnicache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// Calls returns the arguments with which libcni would call CHECK of each of our plugins. The list is
// empty if other plugins have made the attachment. A plugin of the type bridge is ours if the result
// of ADD contains our port, whose name is the parameter port. portmap and firewall are ours if they
// come after such a bridge.
func (r *Record) Calls(port string) (calls []*skel.CmdArgs, err error) {
	plugins, err := r.Plugins()
	if err != nil {
		return nil, err
	}
	dropIn := false
	for _, text := range plugins {
		var conf struct {
			Type         string          `json:"type"`
			Capabilities map[string]bool `json:"capabilities"`
		}
		if err := json.Unmarshal(text, &conf); err != nil {
			return nil, fmt.Errorf("configuration in libcni's record: %w", err)
		}
		switch conf.Type {
		case "":
			return nil, errors.New("configuration in libcni's record: a plugin has no type")
		case plugin.Bridgeveth:
		case plugin.Bridge:
			if !bytes.Contains(r.Result, []byte(port)) {
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
		call, err := r.call(text, conf.Capabilities)
		if err != nil {
			return nil, err
		}
		calls = append(calls, call)
	}
	return calls, nil
}

// Plugins returns the configuration of each plugin in the recorded configuration, which is a list of
// plugins or a single plugin.
func (r *Record) Plugins() ([]json.RawMessage, error) {
	var list struct {
		Plugins []json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(r.Config, &list); err != nil {
		return nil, fmt.Errorf("configuration in libcni's record: %w", err)
	}
	if len(list.Plugins) == 0 {
		list.Plugins = []json.RawMessage{r.Config}
	}
	return list.Plugins, nil
}

// call returns the arguments with which libcni would call CHECK of a plugin. The parameter conf is
// the configuration of the plugin.
func (r *Record) call(conf []byte, capabilities map[string]bool) (*skel.CmdArgs, error) {
	asked := map[string]any{}
	for name, supported := range capabilities {
		if data, ok := r.Capabilities[name]; ok && supported {
			asked[name] = data
		}
	}
	var result struct {
		Version string `json:"cniVersion"`
	}
	if err := json.Unmarshal(r.Result, &result); err != nil {
		return nil, fmt.Errorf("result in libcni's record: %w", err)
	}
	var whole map[string]any
	if err := json.Unmarshal(conf, &whole); err != nil {
		return nil, err
	}
	whole["name"], whole["cniVersion"], whole["prevResult"], whole["runtimeConfig"] = r.Network, result.Version, r.Result, asked
	text, err := json.Marshal(whole)
	if err != nil {
		return nil, err
	}
	args := make([]string, 0, len(r.Args))
	for _, a := range r.Args {
		args = append(args, a[0]+"="+a[1])
	}
	return &skel.CmdArgs{
		ContainerID: r.Container, Netns: r.Namespace, IfName: r.Interface, Args: strings.Join(args, ";"), StdinData: text,
	}, nil
}
