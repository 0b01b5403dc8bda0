package chaos

import (
	"encoding/json"
	"sync"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// object is a JSON object.
type object = map[string]any

// network is a CNI network, with the containers that the runtime knows.
type network struct {
	name   string
	list   *libcni.NetworkConfigList
	limits bool // containers have a host port and bandwidth limits

	// adding is locked for reading during an ADD, and for writing during a GC. A GC deletes the
	// attachments that its caller does not list, so the caller must know all containers with an ADD.
	adding sync.RWMutex

	mu    sync.Mutex
	known map[string]bool // IDs of containers; the bool is always true
}

// newNetworks returns the networks of a run:
//   - north and south are two networks on one bridge.
//   - ports has host ports, bandwidth limits and a guard for each container.
//   - dual and twin have the same dual-stack configuration and share the addresses. ADD refuses a
//     container of one while the other has containers.
func newNetworks() ([]*network, error) {
	range4 := func(subnet string) [][]object { return [][]object{{{"subnet": subnet}}} }
	pair := object{"bridge": "pair0", "isGateway": true, "gatewayConflict": "add"}
	both := object{"bridge": "dual0", "isDefaultGateway": true, "ipMasq": true}
	addresses := append(range4("10.93.0.0/24"), range4("fd93::/64")...)
	var all []*network
	for _, n := range []struct {
		name   string
		plugin object
		ranges [][]object
	}{
		{"north", pair, range4("10.90.0.0/24")},
		{"south", pair, range4("10.91.0.0/24")},
		{"ports", object{
			"bridge": "ports0", "isDefaultGateway": true, "ipMasq": true, "ingressPolicy": "isolated",
			"capabilities": object{"portMappings": true, "bandwidth": true},
		}, range4("10.92.0.0/24")},
		{"dual", both, addresses},
		{"twin", both, addresses},
	} {
		plugin := object{"type": "bridgeveth", "ipam": object{"type": "ipam-simple", "ranges": n.ranges}}
		for key, value := range n.plugin {
			plugin[key] = value
		}
		text, err := json.Marshal(object{"cniVersion": "1.1.0", "name": n.name, "plugins": []object{plugin}})
		if err != nil {
			return nil, err
		}
		list, err := libcni.NetworkConfFromBytes(text)
		if err != nil {
			return nil, err
		}
		all = append(all, &network{name: n.name, list: list, limits: n.name == "ports", known: map[string]bool{}})
	}
	return all, nil
}

// know makes a container valid for GC. forget is the inverse.
func (n *network) know(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[id] = true
}

func (n *network) forget(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known, id)
}

// valid returns the list of attachments for GC.
func (n *network) valid() []types.GCAttachment {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := []types.GCAttachment{}
	for id := range n.known {
		list = append(list, types.GCAttachment{ContainerID: id, IfName: ifname})
	}
	return list
}
