package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// target is a ratio with its limit.
type target struct {
	what  string
	limit float64
	least bool // the limit is a minimum, not a maximum
	ratio func(*report) float64
	// floor is the same ratio for the floor, if there is one. A plugin that starts a Go program for
	// each container, and uses the kernel in this way, cannot be better.
	floor func(*report) float64
}

// targets are all targets.
var targets = []target{
	{"ADD, all features / the floor", 1.5, false, median("ADD", keyFull, keyFloor), nil},
	{"ADD, all features / bridge + host-local", 0.30, false, median("ADD", keyFull, keyPlain), median("ADD", keyFloor, keyPlain)},
	{"ADD, all features / bridge + host-local + portmap + firewall", 0.06, false, median("ADD", keyFull, keyChain), median("ADD", keyFloor, keyChain)},
	{"DEL, all features / bridge + host-local", 0.35, false, median("DEL", keyFull, keyPlain), median("DEL", keyFloor, keyPlain)},
	{"DEL, all features / bridge + host-local + portmap + firewall", 0.06, false, median("DEL", keyFull, keyChain), median("DEL", keyFloor, keyChain)},
	{"ADD to a crowded bridge / to one with 1 container", 1.25, false, crowding(keyFull), nil},
	{"the same, dual stack", 1.25, false, crowding(keyDual), crowding(keyFloorDual)},
	{"8 at a time, ADDs a second / bridge + host-local", 6, true, throughput(eight, keyFull, keyPlain), throughput(eight, keyFloor, keyPlain)},
	{"8 at a time, ADDs a second / bridge + host-local + portmap + firewall", 25, true, throughput(eight, keyFull, keyChain), throughput(eight, keyFloor, keyChain)},
	{"100 dual-stack ADDs at once, wall time / bridge + host-local", 0.25, false, throughput(atOnce, keyPlainDual, keyDual), throughput(atOnce, keyPlainDual, keyFloorDual)},
	{"CHECK / ADD", 0.6, false, checkOf(keyFull), checkOf(keyFloor)},
	{"CPU time of ADD / bridge + host-local", 0.35, false, cpu("ADD", keyFull), cpu("ADD", keyFloor)},
	{"CPU time of DEL / bridge + host-local", 0.35, false, cpu("DEL", keyFull), cpu("DEL", keyFloor)},
	{"peak memory / bridge", 1.0, false, sizes(func(s size) float64 { return s.MemoryKB }), nil},
	{"packets: worst path / bridge + host-local + portmap + firewall", 1 - tolerance, true, (*report).pathRatio, nil},
	{"size of the binary / bridge", 1.0, false, sizes(func(s size) float64 { return s.BinaryKB }), nil},
}

// row returns the line of a system, or nil.
func (r *report) row(operation, scenario, key string) *row {
	for i := range r.Tables {
		if t := &r.Tables[i]; t.Operation == operation && t.Scenario == scenario {
			return t.row(key)
		}
	}
	return nil
}

// over returns a figure of row a divided by that of row b, or 0 if a row is missing.
func over(a, b *row, figure func(*row) float64) float64 {
	if a == nil || b == nil {
		return 0
	}
	return figure(a) / figure(b)
}

func medianOf(r *row) float64 { return r.MedianMS }
func cpuOf(r *row) float64    { return r.CPUMS }

func median(operation, a, b string) func(*report) float64 {
	return func(r *report) float64 {
		return over(r.row(operation, oneByOne, a), r.row(operation, oneByOne, b), medianOf)
	}
}

func throughput(scenario, a, b string) func(*report) float64 {
	return func(r *report) float64 {
		return over(r.row("ADD", scenario, a), r.row("ADD", scenario, b), func(r *row) float64 { return r.PerSecond })
	}
}

func cpu(operation, key string) func(*report) float64 {
	return func(r *report) float64 {
		return over(r.row(operation, oneByOne, key), r.row(operation, oneByOne, keyPlain), cpuOf)
	}
}

// checkOf compares the CHECK of a system with the ADD of bridgeveth.
func checkOf(key string) func(*report) float64 {
	return func(r *report) float64 {
		return over(r.row("CHECK", oneByOne, key), r.row("ADD", oneByOne, keyFull), medianOf)
	}
}

// crowding compares the two lines of a system in the scenario with a crowded bridge.
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

func sizes(figure func(size) float64) func(*report) float64 {
	return func(r *report) float64 {
		of := map[string]float64{}
		for _, s := range r.Sizes {
			of[s.Plugin] = figure(s)
		}
		if of[sizePeer] == 0 {
			return 0
		}
		return of[sizeOurs] / of[sizePeer]
	}
}

// holds reports whether a ratio meets the target. A ratio that was not measured does not meet it.
func (t target) holds(ratio float64) bool {
	if t.least {
		return ratio >= t.limit
	}
	return ratio > 0 && ratio <= t.limit
}

// met reports whether all targets are met.
func (r *report) met() bool {
	for _, t := range targets {
		if !t.holds(t.ratio(r)) {
			return false
		}
	}
	return true
}

// printTargets writes the targets, the ratios and the floor's ratios.
func (r *report) printTargets(w io.Writer) {
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "what\ttarget\tmeasured\tfloor\t")
	for _, t := range targets {
		measured, bound := t.ratio(r), 0.0
		if t.floor != nil {
			bound = t.floor(r)
		}
		fmt.Fprintf(tw, "%s\t%s %.2f\t%s\t%s\t%s\n", t.what, choose(t.least, ">=", "<="), t.limit, ratio(measured), ratio(bound), choose(t.holds(measured), "", "missed"))
	}
	_ = tw.Flush() // a failure could not be printed either
}
