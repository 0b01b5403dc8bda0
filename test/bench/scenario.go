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

// scenario is a situation in which several systems are measured in turns.
type scenario struct {
	name     string
	parallel int // operations in parallel
	rounds   int // timed turns
	members  []member
}

// member is a system, and the number of containers that are attached before the measurement. If
// this number is 0, each ADD creates the network and each DEL removes it.
type member struct {
	system   string
	attached int
}

const (
	none   = 0
	steady = 1
	burst  = 100
)

// Names of the scenarios. The targets find a table by the name of its scenario.
const (
	oneByOne = "one at a time"
	eight    = "8 at a time"
	crowded  = "one at a time, crowded or not"
	atOnce   = "100 at once"
	alone    = "the only container of the network"
)

// scenarios returns all scenarios. crowd is the number of containers on a crowded bridge.
func scenarios(rounds, crowd int) []scenario {
	return []scenario{
		{oneByOne, 1, rounds, []member{{keyFloor, steady}, {"bridgeveth", steady}, {keyFull, steady}, {keyPlain, steady}, {keyChain, steady}}},
		{eight, 8, rounds, []member{{keyFloor, steady}, {keyFull, steady}, {keyPlain, steady}, {keyChain, steady}}},
		{alone, 1, 2 * rounds, []member{{keyMasq, none}, {keyPlain, none}}},
		{crowded, 1, rounds, []member{{keyFull, steady}, {keyFull, crowd}, {keyFloorDual, steady}, {keyFloorDual, crowd}, {keyDual, steady}, {keyDual, crowd}}},
		{atOnce, burst, (rounds + 4) / 5, []member{{keyFloorDual, steady}, {keyDual, steady}, {keyPlainDual, steady}}},
	}
}

// field holds all lanes of a run. A lane is one system with its node. A scenario uses the lanes
// that earlier scenarios have made.
type field struct {
	opts  options
	lanes map[member]*lane
}

// measure runs all scenarios and returns the results. If something did not run, the error names it,
// and the report holds the other results.
func measure(ctx context.Context, opts options) (*report, error) {
	began := time.Now()
	rep, err := newReport(opts)
	if err != nil {
		return nil, err
	}
	all := field{opts, map[member]*lane{}}
	var missing []error
	for _, s := range scenarios(opts.rounds, opts.crowd) {
		r := &contest{scenario: s}
		for _, m := range s.members {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			l, err := all.lane(m, rep)
			missing = append(missing, err)
			if l != nil {
				r.lanes = append(r.lanes, l)
			}
		}
		if err := r.measure(ctx); err != nil {
			return nil, err
		}
		rep.add(r)
	}
	rep.Seconds = time.Since(began).Seconds()
	for _, l := range all.lanes {
		missing = append(missing, l.err)
	}
	rep.connectivity(all.lanes)
	rep.Sizes, err = measureSizes(opts)
	missing = append(missing, err)
	rep.Paths, err = measurePaths(ctx, opts)
	return rep, errors.Join(append(missing, err)...)
}

// lane returns the lane of a member: the system on its own node. It makes the lane at its first
// use. It returns nil without an error if the options do not select the system. It returns nil with
// an error if the system cannot run.
func (f *field) lane(m member, rep *report) (*lane, error) {
	if l := f.lanes[m]; l != nil {
		return l, nil
	}
	if !slices.Contains(f.opts.systems, m.system) {
		return nil, nil //nolint:nilnil // as documented
	}
	s := findSystem(m.system)
	plugins := choose(s.ours, f.opts.bin, f.opts.peers)
	for _, p := range s.plugins {
		if _, err := os.Stat(filepath.Join(plugins, p["type"].(string))); err != nil {
			return nil, fmt.Errorf("%s is left out: %w (make build)", m.system, err)
		}
	}
	l, err := newLane(s, f.opts, burst)
	if err == nil {
		err = rep.fill(l, m.attached)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is left out: %w", m.system, err)
	}
	f.lanes[m] = l
	return l, nil
}

// contest is a scenario together with its lanes (the systems, each on its own node) and
// measurements.
type contest struct {
	scenario
	lanes   []*lane
	samples map[string]map[*lane]*sample // by operation
}

// operations are the measured operations, in the order of the tables.
var operations = []string{"ADD", "CHECK", "DEL"}

// settling is the pause before each turn of a lane (a system on its own node). After a DEL has
// ended, the kernel needs up to 20 ms to free a deleted link. Without the pause, this work would
// slow the ADD of the next lane.
const settling = 100 * time.Millisecond

// measure measures the lanes (systems, each on its own node) in turns. The first round is a warm-up
// and is not counted. Each round reverses the order of the lanes, so that no lane always follows
// the slowest lane. In the first and the last round, the lanes also send test packets. A lane that
// fails takes no more turns. measure returns an error only if the whole run must end.
func (r *contest) measure(ctx context.Context) error {
	for round := range r.rounds + 1 {
		order := slices.Clone(r.lanes)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, l := range order {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if l.err != nil {
				continue
			}
			time.Sleep(settling)
			turn, err := l.turn(r.parallel, round == 0 || round == r.rounds)
			if err != nil {
				l.err = err
				fmt.Fprintln(os.Stderr, "bench:", err)
				continue
			}
			if round > 0 {
				r.record(l, turn)
			}
		}
	}
	return nil
}

// record adds the measurements of one turn of a lane.
func (r *contest) record(l *lane, turn map[string]sample) {
	if r.samples == nil {
		r.samples = map[string]map[*lane]*sample{}
	}
	for operation, s := range turn {
		if r.samples[operation] == nil {
			r.samples[operation] = map[*lane]*sample{}
		}
		if r.samples[operation][l] == nil {
			r.samples[operation][l] = &sample{}
		}
		r.samples[operation][l].join(s)
	}
}
