package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/attack"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// hostile is a container that attacks its neighbours and the host. It lives during the whole run. Its
// networks are isolated.
type hostile struct {
	arena    *attack.Arena
	attached []attachment // in the order of their ADDs
}

// attacked is the name of the attacks in the table of faults.
const attacked = "attacks by a hostile container (see [isolation.md](isolation.md))"

// attackEvery is the number of checks from one series of attacks to the next.
const attackEvery = 5

// attachment is a container of the arena on its network.
type attachment struct {
	list *libcni.NetworkConfigList
	conf *libcni.RuntimeConf
}

// newHostile attaches the containers of the arena.
func (r *run) newHostile() *hostile {
	h := &hostile{}
	host, err := setup.CurrentHost()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(host.Close)
	h.arena = attack.NewArena(r.t, host.Namespace, object{"ingressPolicy": "isolated"}, func(container string, plugin object, hostPorts ...int) {
		if len(hostPorts) > 0 {
			plugin["capabilities"] = object{"portMappings": true}
		}
		text, err := json.Marshal(object{"cniVersion": "1.1.0", "name": plugin["name"], "plugins": []object{plugin}})
		if err != nil {
			r.t.Fatal(err)
		}
		list, err := libcni.NetworkConfFromBytes(text)
		if err != nil {
			r.t.Fatal(err)
		}
		a := attachment{list, &libcni.RuntimeConf{ContainerID: container, NetNS: "/run/netns/" + container, IfName: ifname}}
		for _, port := range hostPorts {
			a.conf.CapabilityArgs = object{"portMappings": []object{{"hostPort": port, "containerPort": 80, "protocol": "tcp"}}}
		}
		if _, err := r.checker.cni.AddNetworkList(context.Background(), a.list, a.conf); err != nil {
			r.t.Fatal(err)
		}
		h.attached = append(h.attached, a)
	})
	return h
}

// attack makes each attack of docs/isolation.md, after a repair and while no worker runs. Each attack
// must fail.
func (r *run) attack() {
	for _, a := range attack.Attacks {
		began := time.Now()
		result := a.Make(r.hostile.arena)
		r.log(entry{at: began, action: "attack: " + a.Name, container: "c1", result: result})
		r.count("faults", attacked)
		if result != attack.Fails {
			r.problem(fmt.Sprintf("attack %q: the result is %q", a.Name, result), "c1")
		}
	}
	// The last attack has switched the spanning tree on. The bridge has disabled the port of c1.
	setuptest.Run(r.t, "ip", "link", "set", "br0", "type", "bridge", "stp_state", "0")
	if out, err := bvctl("repair"); err != nil {
		r.problem(fmt.Sprintf("bvctl repair: %v: %s", err, out))
	}
}

// end detaches and deletes the containers of the arena.
func (h *hostile) end(r *run) {
	setuptest.Run(r.t, "ip", "link", "delete", "switched")
	for _, a := range h.attached {
		if err := r.checker.cni.DelNetworkList(context.Background(), a.list, a.conf); err != nil {
			r.problem("DEL of the hostile container: " + err.Error())
		}
		if err := setup.DeleteNamed(a.conf.ContainerID); err != nil {
			r.problem(err.Error())
		}
	}
	if err := setup.DeleteNamed("switch"); err != nil {
		r.problem(err.Error())
	}
	for _, a := range h.attached {
		if left, err := harness.Leases(a.list.Name); err != nil || len(left) > 0 {
			r.problem(fmt.Sprintf("leases of network %s are left: %v, %v", a.list.Name, left, err))
		}
	}
}
