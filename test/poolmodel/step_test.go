package poolmodel

// next calls visit with each state that can follow s, and with the name of the step.
func (m model) next(s state, visit func(step string, next state)) {
	for i := range s.machine {
		m.power(s, i, visit)
		if s.machine[i].runs {
			m.local(s, i, visit)
			m.send(s, i, visit)
			m.receive(s, i, visit)
		}
		m.deliver(s, i, visit)
	}
	for h := range s.record {
		m.remove(s, h, visit)
	}
	if m.fault == etcdRestored {
		n := s
		n.owner = 0
		visit("etcd is restored from a backup that does not have the claim", n)
	}
	m.tick(s, visit)
}

// power boots and crashes a machine, and kills the process that talks to etcd. The model needs no
// step that suspends a machine, because a machine may make no step for any number of ticks.
func (m model) power(s state, i int, visit func(string, state)) {
	if !s.machine[i].runs {
		s.machine[i].runs = true
		visit("boot", s)
		return
	}
	n := forget(s, i)
	visit("kill, or no answer in time", n)
	c := &n.machine[i]
	c.runs, c.lease = false, false
	if m.fault != handOutUnheard {
		c.heard, c.block = never, absent
	}
	visit("crash", n)
}

// forget returns the state after a machine has stopped waiting for an answer. The request may
// still arrive. The machine no longer knows the revision of its host's record.
func forget(s state, i int) state {
	c := &s.machine[i]
	if c.wait.kind != none && c.wait.result == pending {
		c.late = c.wait
	}
	c.wait, c.knows = request{}, false
	return s
}

// local makes the steps that a machine makes without etcd.
func (m model) local(s state, i int, visit func(string, state)) {
	n := s
	c := &n.machine[i]
	switch {
	case c.lease:
		c.lease = false
		visit("DEL", n)
	case m.mayLease(*c):
		c.lease = true
		visit("ADD", n)
	case m.fault == resumeWithoutHearing && c.block == returning && c.wait.kind == none:
		c.block = inHand
		visit("resume a block", n)
	}
}

// send sends a request. A machine waits for one answer at a time. It sends nothing but hear until
// it knows the revision of its host's record.
func (m model) send(s state, i int, visit func(string, state)) {
	c := s.machine[i]
	if c.wait.kind != none {
		return
	}
	ask := func(step string, k kind, b use) {
		n := s
		n.machine[i].wait, n.machine[i].block = request{kind: k, fresh: true}, b
		visit(step, n)
	}
	ask("send hear", hear, c.block)
	if !c.knows {
		return
	}
	switch {
	case c.block == absent:
		ask("send claim", claim, absent)
	case c.block == inHand && (!c.lease || m.fault == returnLeased):
		ask("send return", giveBack, returning)
	}
}

// deliver makes etcd handle a request.
func (m model) deliver(s state, i int, visit func(string, state)) {
	if s.machine[i].wait.kind != none && s.machine[i].wait.result == pending {
		n := s
		r := m.handle(&n, i, s.machine[i].wait)
		n.machine[i].wait = r
		visit("etcd handles the request", n)
	}
	if s.machine[i].late.kind != none {
		n := s
		n.machine[i].late = request{}
		visit("a late request is lost", n)
		m.handle(&n, i, s.machine[i].late)
		visit("etcd handles a late request", n)
	}
}

// handle changes etcd's keys as a transaction of machine i does, and returns the request with the
// result.
func (m model) handle(s *state, i int, r request) request {
	h := m.host(i)
	me := uint8(h + 1)
	rec := &s.record[h]
	r.result = refused
	switch r.kind {
	case hear:
		other := &s.machine[rec.holder]
		inUse := rec.exists && int(rec.holder) != i && other.runs && m.fault != originalNotConnected
		if r.fresh && rec.fence == noWait && !inUse {
			rec.exists, rec.holder = true, uint8(i)
			m.changed(s, h)
			s.machine[i].knows = false // until the answer comes
			r.result, r.owned, r.fresh = done, s.owner == me, true
		}
	case claim:
		if (r.fresh || m.fault == claimWithoutRevision) && (s.owner == 0 || m.fault == claimWithoutAbsence) {
			s.owner, r.result = me, done
		}
	case giveBack:
		if (r.fresh || m.fault == returnWithoutRevision) && s.owner == me {
			s.owner, r.result = 0, done
		}
	}
	return r
}

// changed notes that the record of a host has changed. All requests that compare its revision fail
// from now on.
func (m model) changed(s *state, h int) {
	s.record[h].release = s.record[h].release && m.fault == releaseWithoutRevision
	for i := range s.machine {
		if m.host(i) == h {
			c := &s.machine[i]
			c.knows, c.wait.fresh, c.late.fresh = false, false, false
		}
	}
}

// receive makes a machine read an answer.
func (m model) receive(s state, i int, visit func(string, state)) {
	n := s
	c := &n.machine[i]
	r := c.wait
	if r.kind == none || r.result == pending {
		return
	}
	c.wait = request{}
	ok := r.result == done
	switch {
	case r.kind == hear && ok:
		c.heard, c.knows, c.block = r.sent, r.fresh, absent
		if m.fault == heardWhenAnswered {
			c.heard = 0
		}
		if r.owned {
			c.block = inHand
		}
	case r.kind == hear:
		c.heard, c.knows = never, false
	case r.kind == claim && ok:
		c.block = inHand
	case r.kind == giveBack && ok:
		c.block = absent
	default:
		c.knows = false // hear again
	}
	visit("receive the answer", n)
}

// remove makes the steps that take a block from a host against its will.
func (m model) remove(s state, h int, visit func(string, state)) {
	down, leased := true, false
	for i, c := range s.machine {
		if m.host(i) == h {
			down, leased = down && !c.runs, leased || c.lease
		}
	}
	n := s
	rec := &n.record[h]
	release := func(step string) {
		*rec = record{}
		if int(n.owner) == h+1 {
			n.owner = 0
		}
		m.changed(&n, h)
		visit(step, n)
	}
	grace := uint8(tooOld)
	if m.fault == graceTooShort {
		grace--
	}
	switch {
	case rec.exists:
		if rec.release {
			release("the release takes the block from the host")
			n = s
		}
		if down || m.fault == hostNotDown {
			m.changed(&n, h)
			rec.release = true
			visit("an administrator begins to release a host that is down", n)
			n = s
		}
		*rec = record{fence: noWait + 1}
		if m.fault == graceBeforeFence {
			rec.fence++
		}
		m.changed(&n, h)
		visit("the host's record is deleted", n)
	case rec.fence > grace && (!leased || m.fault == containersGoOn):
		release("the grace time is over")
	}
}

// tick lets time pass on all machines.
func (m model) tick(s state, visit func(string, state)) {
	for h := range s.record {
		if f := &s.record[h].fence; *f != noWait {
			*f = min(*f+1, tooOld+1)
		}
	}
	n := s
	for i := range s.machine {
		n.machine[i] = older(s.machine[i])
	}
	visit("time passes", n)
	for i := range s.machine {
		if m.fault == clockStopsWhenSuspended {
			one := n
			one.machine[i] = s.machine[i]
			visit("time passes, and a machine is suspended", one)
		}
	}
}

// older returns a machine one tick later.
func older(c machine) machine {
	if c.heard != never {
		c.heard = min(c.heard+1, tooOld)
	}
	if c.wait.kind == hear {
		c.wait.sent = min(c.wait.sent+1, tooOld)
	}
	return c
}
