// Package poolmodel checks the protocol of docs/pool.md in every state that it can reach, with two
// machines, lost and late messages, killed processes, crashes, suspended machines and clones.
package poolmodel

import (
	"slices"
	"strings"
	"testing"
)

// explore visits every state that the model can reach, the nearest first. It returns the number of
// states. If a state breaks a promise, explore stops and returns the promise, and the steps to the
// state.
func (m model) explore() (states int, broken string, steps []string) {
	type visited struct {
		from int32
		step string
	}
	start := state{}
	for i := range start.machine {
		start.machine[i].heard = never
	}
	known := map[uint64]bool{start.pack(): true} // a map of states would be slower
	order, way := []state{start}, []visited{{-1, ""}}
	for at := 0; at < len(order); at++ {
		if broken = m.violation(order[at]); broken != "" {
			for i := int32(at); i > 0; i = way[i].from {
				steps = append(steps, way[i].step)
			}
			slices.Reverse(steps)
			break
		}
		m.next(order[at], func(step string, s state) {
			s = m.reduced(s)
			if key := s.pack(); !known[key] {
				known[key] = true
				order, way = append(order, s), append(way, visited{int32(at), step})
			}
		})
	}
	return len(order), broken, steps
}

// TestProtocol checks that no reachable state breaks a promise of docs/pool.md.
func TestProtocol(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]model{"two hosts": {}, "host and clone": {clone: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			states, broken, steps := m.explore()
			if broken != "" {
				t.Fatalf("%s after:\n%s", broken, strings.Join(steps, "\n"))
			}
			t.Logf("%d states", states)
			if states < 50_000 {
				t.Errorf("the model reaches only %d states", states)
			}
		})
	}
}

// TestFaults checks that the model finds a broken promise if the protocol lacks one of its rules,
// or if an assumption does not hold.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]model{
		"claim does not check that the block is free":                  {fault: claimWithoutAbsence},
		"claim does not compare the revision of the host's record":     {fault: claimWithoutRevision},
		"return does not compare the revision of the host's record":    {fault: returnWithoutRevision},
		"a block with a lease is given back":                           {fault: returnLeased},
		"a returning block is used again before the host hears":        {fault: resumeWithoutHearing},
		"a host hands out addresses after a boot before it hears":      {fault: handOutUnheard},
		"a host hands out addresses for any time without hearing":      {fault: handOutForever},
		"the time is measured from the answer, not from the request":   {fault: heardWhenAnswered},
		"the clock does not count the time while the host sleeps":      {fault: clockStopsWhenSuspended},
		"the grace time is not longer than the offline time":           {fault: graceTooShort},
		"the grace time begins before the record is deleted":           {fault: graceBeforeFence},
		"a release does not compare the revision of the host's record": {fault: releaseWithoutRevision},
		"assumption: an administrator releases a host that still runs": {fault: hostNotDown},
		"assumption: containers run on after the grace time":           {fault: containersGoOn},
		"assumption: etcd is restored from a backup":                   {fault: etcdRestored},
		"assumption: a clone starts while the original is not heard":   {fault: originalNotConnected, clone: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			states, broken, steps := m.explore()
			if broken == "" {
				t.Fatalf("no promise is broken in %d states", states)
			}
			t.Logf("%s after %d states and these steps:\n%s", broken, states, strings.Join(steps, "\n"))
		})
	}
}
