// Bench measures the calls that a container runtime waits for: ADD and DEL through libcni. The
// plugins run as programs, and each container has a network namespace. Bench compares this
// project's plugins with the reference plugins. It measures the systems (sets of plugins) in turns,
// so that other work on the machine slows all of them.
//
// Run Bench from the top of the tree. Root, or a user who may create user namespaces, can run it:
//
//	make bench BENCH='[-short] [-systems a,b] [-json FILE]'
//
// With -packets, Bench measures only the work that the kernel does for a packet. "make bench-vm"
// runs Bench with -packets in a virtual machine. With -commands, Bench measures only the commands
// of bvctl, and the verb GC, on a host with many containers.
//
// All namespaces end with the process. The exit status is 0 if all targets are met, 2 if a target
// is missed, and 1 if something did not run. A target does not count if the floor misses it in the
// same run. The floor is the least work of any plugin (see the type floor). With -short the times
// are rough, so a missed target does not change the exit status.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func init() { runtime.LockOSThread() } // main stays on thread 0, whose namespaces never change

// options holds the options of the command line.
type options struct {
	build    bool     // build the plugins and stop
	packets  bool     // measure packets, and nothing else
	commands bool     // measure the commands for people, and nothing else
	rules    []int    // numbers of other programs' rules with which packets are measured, ascending
	short    bool     // fewer rounds and containers
	rounds   int      // timed turns per system and scenario
	crowd    int      // containers on a crowded bridge
	systems  []string // keys of systems
	leases   []int    // numbers of leases with which the IPAM plugins are measured, ascending
	built    string   // absolute directory of our plugins
	bin      string   // absolute directory in which our plugins are installed
	peers    string   // absolute directory of the reference plugins
	json     string   // file for the report as JSON, or ""
}

func main() {
	opts, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(opts)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(choose(errors.Is(err, errMissed), 2, 1))
	}
}

// errMissed means that a target is not met.
var errMissed = errors.New("a target is not met")

// run builds the plugins, starts this program again in the sandbox (namespaces of its own), and
// measures there.
func run(opts options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if !inSandbox() {
		if !opts.packets { // an emulated processor would need minutes to build them
			if err := errors.Join(buildPeers(ctx, opts.peers), installOurs(opts.built, opts.bin)); err != nil {
				return err
			}
		}
		if opts.build {
			return nil
		}
		return enterSandbox(ctx)
	}
	if err := closeSandbox(); err != nil {
		return err
	}
	rep, err := opts.measure(ctx)
	if rep == nil {
		return err
	}
	if err == nil && !opts.short && !opts.commands && !rep.met(choose(opts.packets, packetTargets, targets)) {
		err = errMissed
	}
	if opts.json != "" {
		if jerr := rep.writeJSON(opts.json); jerr != nil {
			return jerr
		}
	}
	return err
}

// measure measures what the options ask for, and prints the results. If a measurement fails,
// measure returns an error together with the results of the other measurements.
func (opts options) measure(ctx context.Context) (*report, error) {
	if opts.packets {
		rep, err := measurePackets(ctx, opts)
		if rep != nil {
			rep.printPackets(os.Stdout)
		}
		return rep, err
	}
	if opts.commands {
		rep, err := newReport(opts)
		if err == nil {
			rep.Commands, err = measureCommands(ctx, opts)
			rep.printCommands(os.Stdout)
		}
		return rep, err
	}
	rep, err := measure(ctx, opts)
	if rep == nil {
		return nil, err
	}
	var ipamErr, commandErr error
	rep.IPAM, ipamErr = measureIPAM(ctx, opts)
	rep.Commands, commandErr = measureCommands(ctx, opts)
	rep.print(os.Stdout)
	return rep, errors.Join(err, ipamErr, commandErr)
}

// parseOptions reads the command line.
func parseOptions(args []string) (opts options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&opts.build, "build", false, "build the plugins and stop")
	flags.BoolVar(&opts.packets, "packets", false, "measure packets instead; the plugins must be built")
	flags.BoolVar(&opts.commands, "commands", false, "measure the commands of bvctl and GC with many containers instead")
	flags.BoolVar(&opts.short, "short", false, "a minute at most: fewer rounds, containers on a crowded bridge, and foreign rules")
	rounds := flags.Int("rounds", 0, "timed turns per system and scenario (default 25, or 3 with -short or -packets)")
	flags.IntVar(&opts.crowd, "crowd", 0, "containers on a crowded bridge (default 1000, or 200 with -short)")
	leases := flags.String("leases", "", `leases beside which IPAM plugins are measured (default "0,1000,16000,65000,1000000", or without the last with -short)`)
	chosen := flags.String("systems", strings.Join(systemKeys(), ","), "what to measure")
	bin := flags.String("bin", "bin", "directory of this project's plugins")
	peers := flags.String("peers", ".cache/bench", "directory to build the reference plugins in")
	flags.StringVar(&opts.json, "json", "", "write the report to this `file` as well")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	if flags.NArg() > 0 {
		return opts, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if opts.rounds = *rounds; opts.rounds <= 0 {
		opts.rounds = choose(opts.short || opts.packets, 3, 25)
	}
	opts.rules = choose(opts.short, []int{usualRules}, []int{0, usualRules, 1000})
	if opts.crowd <= 0 {
		opts.crowd = choose(opts.short, 200, 1000)
	}
	if opts.crowd > maxCrowd {
		return opts, fmt.Errorf("-crowd: %d is more than %d", opts.crowd, maxCrowd)
	}
	if *leases == "" {
		*leases = choose(opts.short, "0,1000,16000,65000", "0,1000,16000,65000,1000000")
	}
	if opts.leases, err = parseCounts("leases", *leases, 0, maxLeases); err != nil {
		return opts, err
	}
	if opts.systems, err = parseSystems(*chosen); err != nil {
		return opts, err
	}
	if opts.built, err = filepath.Abs(*bin); err != nil {
		return opts, err
	}
	opts.peers, err = filepath.Abs(*peers)
	opts.bin = filepath.Join(opts.peers, "ours")
	return opts, err
}

// maxCrowd is the largest number of containers that stay attached to one bridge. A Linux bridge has
// at most 1023 ports (BR_PORT_BITS in net/bridge/br_private.h), and some are needed for the
// containers that each turn attaches.
const maxCrowd = 1000

// parseCounts reads a comma-separated list of numbers between least and most, and sorts it. name is
// the name of the option, for the error.
func parseCounts(name, list string, least, most int) ([]int, error) {
	var counts []int
	for field := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || n < least || n > most {
			return nil, fmt.Errorf("-%s: %q is no number in %d..%d", name, field, least, most)
		}
		counts = append(counts, n)
	}
	slices.Sort(counts)
	return slices.Compact(counts), nil
}

// parseSystems reads a comma-separated list of keys of systems.
func parseSystems(list string) ([]string, error) {
	keys := strings.Split(list, ",")
	for _, key := range keys {
		if !slices.Contains(systemKeys(), key) {
			return nil, fmt.Errorf("-systems: %q is none of %s", key, strings.Join(systemKeys(), ", "))
		}
	}
	return keys, nil
}

// choose returns the parameter a if holds is true, and otherwise the parameter b.
func choose[T any](holds bool, a, b T) T {
	if holds {
		return a
	}
	return b
}
