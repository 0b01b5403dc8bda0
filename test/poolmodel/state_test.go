package poolmodel

// The model has two machines and one block. The block contains one address. Two machines are enough
// to break every rule, and blocks do not depend on each other.
const machines = 2

// A tick is the unit of time. A machine hands out addresses for up to offline ticks after it has
// heard from etcd.
const offline = 1

// Values of machine.heard and of state.fence.
const (
	tooOld = offline + 1 // the time has run out; the model does not count further
	never  = tooOld + 1  // machine.heard: no answer since the boot
	noWait = 0           // state.fence: the record was not deleted; n+1 means deleted n ticks ago
)

// use says what the store of a machine contains about the block.
type use uint8

const (
	absent    use = iota
	inHand        // ADD may lease the address
	returning     // ADD may not lease the address
)

// kind is the kind of a transaction.
type kind uint8

const (
	none kind = iota
	hear
	claim
	giveBack
)

// result is what etcd has done with a transaction.
type result uint8

const (
	pending result = iota
	done
	refused
)

// request is a transaction on its way to etcd, or the answer on its way back.
type request struct {
	kind   kind
	fresh  bool // the host's record has not changed since the machine sent the request
	result result
	sent   uint8 // ticks since the machine sent the request
	owned  bool  // part of the answer to hear: the host owns the block
}

// machine is one machine. Its store lasts until the next boot, as the leases do.
type machine struct {
	runs  bool
	heard uint8   // ticks since the request that etcd has last answered
	knows bool    // the machine knows the revision of its host's record
	block use     // the block in the machine's store
	lease bool    // a container has the address
	wait  request // the request whose answer the machine waits for
	late  request // a request whose sender was killed or gave up, and which may still arrive
}

// record is the key of a host in etcd.
type record struct {
	exists  bool
	holder  uint8 // the machine that has written the record last
	release bool  // an administrator has changed the record last, to release the host
	fence   uint8 // somebody has deleted the record; see noWait
}

// state is the state of the whole model.
type state struct {
	machine [machines]machine
	record  [machines]record // by host
	owner   uint8            // the host that owns the block, plus 1; 0 if no host owns the block
}

// model is a variant of the protocol or of its assumptions. The zero value is the protocol, with
// two hosts, under all assumptions of docs/pool.md.
type model struct {
	clone bool // both machines have the identity of host 0
	fault fault
}

// fault removes one rule of the protocol, or one assumption.
type fault uint8

const (
	noFault fault = iota
	claimWithoutAbsence
	claimWithoutRevision
	returnWithoutRevision
	returnLeased
	resumeWithoutHearing
	handOutUnheard
	handOutForever
	heardWhenAnswered
	clockStopsWhenSuspended
	graceTooShort
	graceBeforeFence
	releaseWithoutRevision
	// Assumptions.
	hostNotDown
	containersGoOn
	originalNotConnected
	etcdRestored
)

// host returns the host whose identity a machine has.
func (m model) host(i int) int {
	if m.clone {
		return 0
	}
	return i
}

// mayLease reports whether ADD on a machine may lease the address now, or when a suspended machine
// continues.
func (m model) mayLease(c machine) bool {
	return c.runs && c.block == inHand && (c.heard <= offline || m.fault == handOutForever)
}

// reduced returns the smallest of the states that behave like s. It removes what no later step can
// depend on.
func (m model) reduced(s state) state {
	unchecked := m.fault == claimWithoutRevision || m.fault == returnWithoutRevision
	for i := range s.machine {
		c := &s.machine[i]
		if !c.late.fresh && !unchecked {
			c.late = request{} // etcd will refuse the request
		}
		if c.wait.kind != none && !c.wait.fresh && c.wait.result == pending && !unchecked {
			c.wait.result = refused
		}
		if !c.knows && c.block != inHand && m.fault != resumeWithoutHearing {
			c.heard = never // the next hear sets it
		}
		c.late.sent = 0
	}
	if swapped := swap(s); !m.clone && swapped.pack() < s.pack() {
		return swapped // the two hosts are alike
	}
	return s
}

// swap returns the state in which the two machines and their hosts have changed places.
func swap(s state) state {
	s.machine[0], s.machine[1] = s.machine[1], s.machine[0]
	s.record[0], s.record[1] = s.record[1], s.record[0]
	for h := range s.record {
		if s.record[h].exists {
			s.record[h].holder = 1 - s.record[h].holder
		}
	}
	if s.owner > 0 {
		s.owner = 3 - s.owner
	}
	return s
}

// pack returns a number that differs between any two states.
func (s state) pack() (n uint64) {
	add := func(bits uint, v uint8) { n = n<<bits | uint64(v) }
	flag := func(b bool) {
		if b {
			add(1, 1)
		} else {
			add(1, 0)
		}
	}
	for _, c := range s.machine {
		flag(c.runs)
		add(2, c.heard)
		flag(c.knows)
		add(2, uint8(c.block))
		flag(c.lease)
		for _, r := range []request{c.wait, c.late} {
			add(2, uint8(r.kind))
			flag(r.fresh)
			add(2, uint8(r.result))
			add(2, r.sent)
			flag(r.owned)
		}
	}
	for _, r := range s.record {
		flag(r.exists)
		add(1, r.holder)
		flag(r.release)
		add(2, r.fence)
	}
	add(2, s.owner)
	return n
}

// violation returns the promise that a state breaks, or "".
func (m model) violation(s state) string {
	leased, able := 0, 0
	for i, c := range s.machine {
		if c.lease {
			leased++
		}
		if m.mayLease(c) {
			able++
			if int(s.owner) != m.host(i)+1 {
				return "a machine can lease an address of a block that its host does not own"
			}
		}
	}
	switch r := s.record[max(int(s.owner)-1, 0)]; {
	case leased > 1:
		return "two machines have leased the same address"
	case able > 1:
		return "two machines can lease the same address"
	case s.owner > 0 && !r.exists && r.fence == noWait:
		return "a host without a record owns a block, so the block is lost"
	}
	return ""
}
