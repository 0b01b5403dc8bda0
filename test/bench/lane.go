package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"
)

const (
	opTimeout  = time.Minute // for one ADD or DEL, so that a plugin that hangs is found
	firstPort  = 20000       // host port of a node's first guest
	attachers  = 8           // ADDs at a time when filling the bridge
	leastBatch = 4           // ADDs in a turn, then as many DELs, at least
)

// lane is a system on its node: one of those that take turns.
type lane struct {
	*system
	node      *node
	cni       *libcni.CNIConfig
	list      *libcni.NetworkConfigList
	residents []*guest // attached for good
	visitors  []*guest // come and go
	serial    int      // of the last container ID
	err       error    // of the first failure: the lane is out
}

// newLane makes the system's node, with room for visitors that come and go.
func newLane(s *system, plugins string, visitors int) (*lane, error) {
	list, err := s.config()
	if err != nil {
		return nil, err
	}
	n, err := newNode()
	if err != nil {
		return nil, err
	}
	l := &lane{system: s, node: n, list: list}
	l.cni = libcni.NewCNIConfigWithCacheDir([]string{plugins}, stateDir+"/cache", nil)
	l.visitors, err = n.newGuests(visitors, firstPort)
	return l, err
}

// add attaches a guest.
func (l *lane) add(g *guest) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	began := time.Now()
	g.result, err = l.cni.AddNetworkList(ctx, l.list, g.runtimeConf())
	g.took = time.Since(began)
	if err != nil {
		return fmt.Errorf("%s: ADD: %w", l.key, err)
	}
	return nil
}

// del detaches a guest.
func (l *lane) del(g *guest) error {
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	began := time.Now()
	err := l.cni.DelNetworkList(ctx, l.list, g.runtimeConf())
	g.took = time.Since(began)
	if err != nil {
		return fmt.Errorf("%s: DEL: %w", l.key, err)
	}
	return nil
}

// name gives guests new container IDs, as long as a runtime's.
func (l *lane) name(guests []*guest) {
	for _, g := range guests {
		l.serial++
		g.id = fmt.Sprintf("%064x", l.serial)
	}
}

// fill attaches residents until there are count, and returns how long that took.
func (l *lane) fill(count int) (time.Duration, error) {
	guests, err := l.node.newGuests(count-len(l.residents), firstPort+len(l.visitors)+len(l.residents))
	if err != nil {
		return 0, err
	}
	l.name(guests)
	l.residents = append(l.residents, guests...)
	return l.node.each(guests, attachers, l.add)
}

// turn attaches and detaches a batch of visitors, parallel at a time. With
// verify, packets are sent in between.
func (l *lane) turn(parallel int, verify bool) (add, del sample, err error) {
	batch := l.visitors[:max(parallel, leastBatch)]
	l.name(batch)
	if add, err = l.timed(batch, parallel, l.add); err != nil {
		return add, del, err
	}
	if verify {
		if err := l.verify(batch[0], batch[1]); err != nil {
			return add, del, err
		}
	}
	if del, err = l.timed(batch, parallel, l.del); err != nil {
		return add, del, err
	}
	for _, g := range batch { // some plugins set lo up: let them do so again
		if err := l.node.inGuest(g, func() error { return loopback(false) }); err != nil {
			return add, del, err
		}
	}
	return add, del, nil
}

// timed measures f for each guest, parallel at a time.
func (l *lane) timed(guests []*guest, parallel int, f func(*guest) error) (sample, error) {
	before, err := childrenCPU()
	if err != nil {
		return sample{}, err
	}
	wall, err := l.node.each(guests, parallel, f)
	if err != nil {
		return sample{}, err
	}
	after, err := childrenCPU()
	s := sample{wall: wall, cpu: after - before}
	for _, g := range guests {
		s.took = append(s.took, g.took)
	}
	return s, err
}

// childrenCPU returns the user and system time of all children that have been
// waited for, and of theirs. What the kernel does on its own threads, such as
// freeing a link later, is in nobody's account.
func childrenCPU() (time.Duration, error) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &usage); err != nil {
		return 0, fmt.Errorf("read CPU time of children: %w", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}

// verify pings the gateway from a, which must answer: else the figures are of
// something that does not work. Then it pings b from a, which must answer
// exactly if the system opens FORWARD or bridged packets do not pass there.
func (l *lane) verify(a, b *guest) error {
	_, gateway, err := a.addresses()
	if err != nil {
		return fmt.Errorf("%s: %w", l.key, err)
	}
	other, _, err := b.addresses()
	if err != nil {
		return fmt.Errorf("%s: %w", l.key, err)
	}
	return l.node.inGuest(a, func() error {
		if err := l.expect(gateway, true); err != nil {
			return err
		}
		return l.expect(other, l.opens || !l.node.filters)
	})
}

// expect pings an address from the thread's namespace. It waits longer for an
// answer that should come than for one that should not.
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
