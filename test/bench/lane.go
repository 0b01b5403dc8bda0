package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	opTimeout   = time.Minute // longest duration of one ADD or DEL; a plugin that hangs is then ended
	firstPort   = 20000       // host port of a node's first container
	attachers   = 8           // concurrent ADDs when filling the bridge
	mostFlooded = 900         // most ports that a broadcast may reach; from 1000 on (net.core.netdev_max_backlog), the answer is lost
	leastBatch  = 4           // fewest ADDs in a turn; CHECKs and DELs follow for the same containers
)

// lane is one measured system (a set of plugins) with its own node (a simulated host). The
// benchmark measures the lanes in turns.
type lane struct {
	*system
	node      *node
	cni       *libcni.CNIConfig
	list      *libcni.NetworkConfigList
	floor     *floor   // set if this program attaches the containers, not a plugin
	residents []*guest // containers that stay attached
	visitors  []*guest // containers that each turn attaches and detaches
	serial    int      // number of the last container ID
	err       error    // the first failure; the lane takes no more turns
}

// newLane makes a node (a simulated host) for the system, with the given number of visitors.
// Visitors are containers that each turn attaches and detaches.
func newLane(s *system, opts options, visitors int) (l *lane, err error) {
	n, err := newNode()
	if err != nil {
		return nil, err
	}
	l = &lane{system: s, node: n}
	if s.builtIn {
		err = n.run(func() (err error) {
			l.floor, err = newFloor(filepath.Join(opts.peers, startProgram), s.key == keyFloorDual, n)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if l.list, err = s.config(networkName); err != nil {
		return nil, err
	}
	l.cni = libcni.NewCNIConfigWithCacheDir([]string{choose(s.ours, opts.bin, opts.peers)}, stateDir+"/cache", nil)
	l.visitors, err = n.newGuests(visitors, firstPort)
	return l, err
}

// add attaches a container, check runs CHECK for it, and del detaches it. The calling thread must
// be in the namespaces of the node (the simulated host).
func (l *lane) add(g *guest) error {
	return l.do("ADD", g, func(ctx context.Context) (err error) {
		if l.floor != nil {
			return l.floor.add(g)
		}
		g.result, err = l.cni.AddNetworkList(ctx, l.list, g.runtimeConf())
		return err
	})
}

func (l *lane) check(g *guest) error {
	return l.do("CHECK", g, func(ctx context.Context) error {
		return l.cni.CheckNetworkList(ctx, l.list, g.runtimeConf())
	})
}

func (l *lane) del(g *guest) error {
	return l.do("DEL", g, func(ctx context.Context) error {
		if l.floor != nil {
			return l.floor.del(g)
		}
		return l.cni.DelNetworkList(ctx, l.list, g.runtimeConf())
	})
}

// do runs an operation for a container, and stores its duration in the container.
func (l *lane) do(operation string, g *guest, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	began := time.Now()
	err := f(ctx)
	g.took = time.Since(began)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", l.key, operation, err)
	}
	return nil
}

// name gives each container a new container ID.
func (l *lane) name(guests []*guest) {
	for _, g := range guests {
		l.serial++
		g.id = fmt.Sprintf("%064x", l.serial)
	}
}

// fill attaches more residents (containers that stay attached), until the lane has the given number
// of residents. It returns how long this took.
func (l *lane) fill(count int) (time.Duration, error) {
	guests, err := l.node.newGuests(count-len(l.residents), firstPort+len(l.visitors)+len(l.residents))
	if err != nil {
		return 0, err
	}
	l.name(guests)
	l.residents = append(l.residents, guests...)
	return l.node.each(guests, attachers, l.add)
}

// turn attaches, checks and detaches a batch of visitors (containers that are not attached between
// turns). The parameter parallel says how many operations run at the same time. If the lane has no
// residents (containers that stay attached), the batch has a single visitor. If verify is set, turn
// sends test packets between ADD and CHECK.
func (l *lane) turn(parallel int, verify bool) (samples map[string]sample, err error) {
	batch := l.visitors[:max(parallel, leastBatch)]
	if len(l.residents) == 0 {
		batch = l.visitors[:1]
	}
	l.name(batch)
	samples = map[string]sample{}
	if samples["ADD"], err = l.timed(batch, parallel, l.add); err != nil {
		return nil, err
	}
	if verify && len(l.residents) < mostFlooded {
		if err := l.verify(batch); err != nil {
			return nil, err
		}
	}
	if samples["CHECK"], err = l.timed(batch, parallel, l.check); err != nil {
		return nil, err
	}
	if samples["DEL"], err = l.timed(batch, parallel, l.del); err != nil {
		return nil, err
	}
	for _, g := range batch { // some plugins set lo up, which is then part of their work in every turn
		if err := l.node.inGuest(g, func() error { return loopback(false) }); err != nil {
			return nil, err
		}
	}
	if len(l.residents) == 0 {
		err = l.node.run(removeBridge)
	}
	return samples, err
}

// removeBridge deletes the bridge if it exists. The reference plugins leave the bridge behind.
func removeBridge() error {
	br, err := netlink.LinkByName(bridgeName)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the bridge: %w", err)
	}
	return netlink.LinkDel(br)
}

// timed calls f for each container and returns the measured times. The parameter parallel says how
// many calls run at the same time.
func (l *lane) timed(guests []*guest, parallel int, f func(*guest) error) (sample, error) {
	before, err := l.spent()
	if err != nil {
		return sample{}, err
	}
	wall, err := l.node.each(guests, parallel, f)
	if err != nil {
		return sample{}, err
	}
	after, err := l.spent()
	s := sample{wall: wall, cost: cost{after.cpu - before.cpu, after.faults - before.faults}}
	for _, g := range guests {
		s.took = append(s.took, g.took)
	}
	return s, err
}

// spent returns the CPU time and the page faults of all child processes that have ended, and of
// their own children. For the floor, this process itself attaches the containers, so spent also
// adds the CPU time of this process. The result does not include work that kernel threads do later,
// such as freeing a link.
func (l *lane) spent() (sum cost, err error) {
	whose := []int{unix.RUSAGE_CHILDREN}
	if l.floor != nil {
		whose = append(whose, unix.RUSAGE_SELF)
	}
	for _, who := range whose {
		var usage unix.Rusage
		if err := unix.Getrusage(who, &usage); err != nil {
			return cost{}, fmt.Errorf("read CPU time: %w", err)
		}
		sum.cpu += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		if who == unix.RUSAGE_CHILDREN {
			sum.faults = usage.Minflt
		}
	}
	return sum, nil
}

// verify pings from the first container of a batch. The gateway must answer: otherwise the system
// does not work, and its times mean nothing. If there is a second container, verify pings it too.
// This container must answer if the system adds FORWARD rules, or if bridged packets do not pass
// FORWARD. Otherwise it must not answer.
func (l *lane) verify(batch []*guest) error {
	_, gateway, err := batch[0].addresses()
	if err != nil {
		return fmt.Errorf("%s: %w", l.key, err)
	}
	return l.node.inGuest(batch[0], func() error {
		err := l.expect(gateway, true)
		if err != nil || len(batch) == 1 {
			return err
		}
		other, _, err := batch[1].addresses()
		if err != nil {
			return fmt.Errorf("%s: %w", l.key, err)
		}
		return l.expect(other, l.opens || !l.node.filters)
	})
}

// expect pings an address from the calling thread's network namespace. It returns an error if an
// answer comes and want is false, or if no answer comes and want is true. If an answer must come,
// expect waits longer.
func (l *lane) expect(to net.IP, want bool) error {
	tries, wait := 1, 300*time.Millisecond
	if want {
		tries, wait = 3, time.Second
	}
	got, err := ping(to, tries, wait)
	if err != nil {
		return fmt.Errorf("%s: %w", l.key, err)
	}
	if got != want {
		return fmt.Errorf("%s: ping %s was answered: %t, want %t", l.key, to, got, want)
	}
	return nil
}
