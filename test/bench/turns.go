package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// measure runs all cases and reports them. An error says what did not run; the
// report, if there is one, holds the rest.
func measure(ctx context.Context, opts options) (*report, error) {
	began := time.Now()
	rep, err := newReport(opts)
	if err != nil {
		return nil, err
	}
	lanes, missing := newLanes(opts)
	if len(lanes) == 0 {
		return nil, missing
	}
	for _, attached := range opts.attached {
		for _, l := range running(lanes) {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			rep.fill(l, attached)
		}
		for _, parallel := range opts.parallel {
			c := newCase(attached, parallel, running(lanes))
			if err := c.run(ctx, opts.rounds); err != nil {
				return nil, err
			}
			rep.add(c)
		}
	}
	rep.Seconds = time.Since(began).Seconds()
	rep.connectivity(lanes)
	errs := []error{missing}
	for _, l := range lanes {
		errs = append(errs, l.err)
	}
	return rep, errors.Join(errs...)
}

// newLanes prepares a node for every chosen system. The error names those that
// cannot run; the others can.
func newLanes(opts options) (lanes []*lane, err error) {
	var errs []error
	for _, key := range opts.systems {
		s := findSystem(key)
		plugins := choose(s.ours, opts.bin, opts.peers)
		if _, err := os.Stat(filepath.Join(plugins, s.plugins[0]["type"].(string))); err != nil {
			errs = append(errs, fmt.Errorf("%s is left out: %w (make build)", key, err))
			continue
		}
		l, err := newLane(s, plugins, max(slices.Max(opts.parallel), leastBatch))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s is left out: %w", key, err))
			continue
		}
		lanes = append(lanes, l)
	}
	return lanes, errors.Join(errs...)
}

// running returns the lanes that have not failed.
func running(lanes []*lane) []*lane {
	return slices.DeleteFunc(slices.Clone(lanes), func(l *lane) bool { return l.err != nil })
}

// benchCase is one situation that all systems are measured in.
type benchCase struct {
	attached, parallel int
	lanes              []*lane
	adds, dels         map[*lane]*sample
}

// newCase returns the case, with nothing measured yet.
func newCase(attached, parallel int, lanes []*lane) *benchCase {
	return &benchCase{
		attached: attached, parallel: parallel, lanes: lanes,
		adds: map[*lane]*sample{}, dels: map[*lane]*sample{},
	}
}

// run lets the lanes take turns. The first round only warms up. The order is
// turned round every time, so that none always follows the slowest. In the first
// and the last round, packets are sent. A lane that fails is out of it; the error
// is about the run as a whole.
func (c *benchCase) run(ctx context.Context, rounds int) error {
	for round := range rounds + 1 {
		order := slices.Clone(c.lanes)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, l := range running(order) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			add, del, err := l.turn(c.parallel, round == 0 || round == rounds)
			if err != nil {
				l.err = err
				fmt.Fprintln(os.Stderr, "bench:", err)
				continue
			}
			if round > 0 {
				c.record(l, add, del)
			}
		}
	}
	return nil
}

// record adds a turn to what was measured.
func (c *benchCase) record(l *lane, add, del sample) {
	if c.adds[l] == nil {
		c.adds[l], c.dels[l] = &sample{}, &sample{}
	}
	c.adds[l].join(add)
	c.dels[l].join(del)
}
