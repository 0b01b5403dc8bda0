package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// target is a limit for a ratio of two results.
type target struct {
	what  string
	limit float64
	least bool // the limit is a minimum, not a maximum
	ratio func(*report) float64
	// floor computes the ratio for the floor (the least work of any plugin) instead of bridgeveth.
	// If the floor misses the limit too, this machine cannot show that the target is met. nil means
	// that the floor has no such ratio.
	floor func(*report) float64
}

// targets are all targets of "make bench".
var targets = []target{
	{"ADD, all features / the floor", 1.25, false, compare(oneByOne, "ADD", medianOf, keyFull, keyFloor), nil},
	{"ADD, all features / bridge + host-local", 0.35, false, compare(oneByOne, "ADD", medianOf, keyFull, keyPlain), compare(oneByOne, "ADD", medianOf, keyFloor, keyPlain)},
	{"8 at a time, ADDs a second / bridge + host-local", 2.9, true, compare(eight, "ADD", perSecondOf, keyFull, keyPlain), compare(eight, "ADD", perSecondOf, keyFloor, keyPlain)},
	{"8 at a time, ADDs a second / bridge + host-local + portmap + firewall", 21, true, compare(eight, "ADD", perSecondOf, keyFull, keyChain), compare(eight, "ADD", perSecondOf, keyFloor, keyChain)},
	{"100 dual-stack ADDs at once, wall time / bridge + host-local", 0.27, false, compare(atOnce, "ADD", perSecondOf, keyPlainDual, keyDual), compare(atOnce, "ADD", perSecondOf, keyPlainDual, keyFloorDual)},
	{"dual-stack ADD to a crowded bridge / to one with 1 container, over the floor's ratio", 1.05, false, quotient(crowding(keyDual), crowding(keyFloorDual)), nil},
	{"CHECK / a start of a program that does nothing, by libcni", 1.5, false, compare(oneByOne, "CHECK", medianOf, keyFull, keyFloor), nil},
	{"ipam-simple as a process / a Go program that does nothing", 1.45, false, (*report).ipamStart, nil},
	{"ipam-simple, ADD with a shared pool / without", 1.03, false, (*report).poolCost, nil},
	{"minor page faults of ADD / of the program that the floor starts", 1.0, false, compare(oneByOne, "ADD", faultsOf, keyFull, keyFloor), nil},
	{"DEL, CPU time / bridge + host-local", 0.40, false, compare(oneByOne, "DEL", cpuOf, keyFull, keyPlain), compare(oneByOne, "DEL", cpuOf, keyFloor, keyPlain)},
	{"first ADD of a network, FORWARD fix and masquerade / bridge + host-local", 0.8, false, compare(alone, "ADD", medianOf, keyMasq, keyPlain), nil},
	{"last DEL of a network, the same", 0.8, false, compare(alone, "DEL", medianOf, keyMasq, keyPlain), nil},
}

// row returns the line of a system in the table of an operation and a scenario, or nil.
func (r *report) row(operation, scenario, key string) *row {
	for i := range r.Tables {
		if t := &r.Tables[i]; t.Operation == operation && t.Scenario == scenario {
			return t.row(key)
		}
	}
	return nil
}

// compare returns a function that computes a ratio from a report: a figure of system a divided by
// the same figure of system b. The ratio is 0 if a system was not measured.
func compare(scenario, operation string, figure func(*row) float64, a, b string) func(*report) float64 {
	return func(r *report) float64 {
		return over(r.row(operation, scenario, a), r.row(operation, scenario, b), figure)
	}
}

// over returns a figure of the row a divided by the same figure of the row b, or 0 if a row is
// missing.
func over(a, b *row, figure func(*row) float64) float64 {
	if a == nil || b == nil || figure(b) == 0 {
		return 0
	}
	return figure(a) / figure(b)
}

func medianOf(r *row) float64    { return r.MedianMS }
func cpuOf(r *row) float64       { return r.CPUMS }
func faultsOf(r *row) float64    { return r.Faults }
func perSecondOf(r *row) float64 { return r.PerSecond }

// quotient returns a function that divides the ratio a by the ratio b.
func quotient(a, b func(*report) float64) func(*report) float64 {
	return func(r *report) float64 {
		if b(r) == 0 {
			return 0
		}
		return a(r) / b(r)
	}
}

// crowding returns a function that computes how much longer ADD of a system takes on a crowded
// bridge: the median with many containers divided by the median with one container.
func crowding(key string) func(*report) float64 {
	return func(r *report) float64 {
		var few, many *row
		for i := range r.Tables {
			if t := &r.Tables[i]; t.Operation == "ADD" && t.Scenario == crowded {
				few = t.row(key)
				for j := range t.Rows {
					if t.Rows[j].System == key && t.Rows[j].Attached > steady {
						many = &t.Rows[j]
					}
				}
			}
		}
		return over(many, few, medianOf)
	}
}

// ipamStart returns the time of an ADD of ipam-simple divided by the run time of a program that
// does nothing.
func (r *report) ipamStart() float64 {
	if r.IPAM == nil || r.IPAM.row("ipam-simple", 0) == nil {
		return 0
	}
	return r.IPAM.row("ipam-simple", 0).AddMS / r.IPAM.EmptyMS
}

// poolCost returns the time of an ADD of ipam-simple with a pool that hosts share, divided by the time
// without.
func (r *report) poolCost() float64 {
	if r.IPAM == nil || r.IPAM.row(withPool, 0) == nil || r.IPAM.row("ipam-simple", 0) == nil {
		return 0
	}
	return r.IPAM.row(withPool, 0).AddMS / r.IPAM.row("ipam-simple", 0).AddMS
}

// holds reports whether a ratio meets the target. The ratio 0 does not meet it, because 0 means
// that the ratio was not measured.
func (t target) holds(ratio float64) bool {
	if t.least {
		return ratio >= t.limit
	}
	return ratio > 0 && ratio <= t.limit
}

// verdict returns the word for the table that says whether the target is met.
func (t target) verdict(r *report) string {
	switch {
	case t.holds(t.ratio(r)):
		return "met"
	case t.floor != nil && t.floor(r) > 0 && !t.holds(t.floor(r)):
		return floorMisses
	}
	return "missed"
}

const floorMisses = "the floor misses it"

// met reports whether all targets are met. A target does not count if the floor (the least work of
// any plugin) misses it too.
func (r *report) met(targets []target) bool {
	return !slices.ContainsFunc(targets, func(t target) bool { return t.verdict(r) == "missed" })
}

// printTargets writes each target with its measured ratio, and with the ratio of the floor (the
// least work of any plugin).
func (r *report) printTargets(w io.Writer, targets []target) {
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "what\ttarget\tmeasured\tfloor\tresult")
	for _, t := range targets {
		bound := 0.0
		if t.floor != nil {
			bound = t.floor(r)
		}
		fmt.Fprintf(tw, "%s\t%s %.2f\t%s\t%s\t%s\n", t.what, choose(t.least, ">=", "<="), t.limit, ratio(t.ratio(r)), ratio(bound), t.verdict(r))
	}
	_ = tw.Flush() // a failure could not be printed either
}
