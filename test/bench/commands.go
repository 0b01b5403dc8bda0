package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// commandRow holds the time and the peak memory of one command on a host with many containers.
type commandRow struct {
	Command    string  `json:"command"`
	Containers int     `json:"containers"`
	Seconds    float64 `json:"seconds"`            // median
	CPUSeconds float64 `json:"cpuSeconds"`         // mean
	MemoryKB   float64 `json:"memoryKb,omitempty"` // peak; 0 if unknown
	Problems   bool    `json:"problems,omitempty"` // bvctl doctor has found problems, so it took longer
}

// commandTurns is how often each command runs. The row of the command has the median time.
const commandTurns = 3

// commands are the measured commands of bvctl.
var commands = [][]string{{"inspect"}, {"topology"}, {"leases"}, {"leases", "check"}, {"repair"}, {"doctor"}}

// crowdNetworks is the number of networks for the containers. With 1,000 containers on one bridge,
// a broadcast would overflow a queue of the kernel (see mostFlooded), and bvctl doctor would report
// this problem. Even with ten networks, bvctl doctor reports a full table of neighbour entries,
// unless the sysctl gc_thresh3 is greater than its default.
const crowdNetworks = 10

// measureCommands measures the commands of bvctl, and GC. It measures them first with a tenth of the
// containers, and then with all containers, to show how times and memory grow.
func measureCommands(ctx context.Context, opts options) (rows []commandRow, err error) {
	l, err := newLane(findSystem(keyFull), opts, 0)
	if err != nil {
		return nil, err
	}
	lists, err := l.crowdLists()
	if err != nil {
		return nil, err
	}
	for _, containers := range []int{opts.crowd / 10, opts.crowd} {
		for i := range lists {
			l.list = lists[i]
			if _, err := l.fill(len(l.residents) + (containers-len(l.residents))/(len(lists)-i)); err != nil {
				return nil, err
			}
		}
		for _, command := range commands {
			row, err := l.command(ctx, opts, command)
			if err != nil {
				return nil, err
			}
			rows = append(rows, row)
		}
		row, err := l.collect(ctx, lists)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// crowdConfDir is the folder of the networks' configurations.
const crowdConfDir = stateDir + "/net.d"

// crowdLists returns the configurations of ten networks (crowdNetworks). It also writes them to
// crowdConfDir, where bvctl reads them.
func (l *lane) crowdLists() (lists []*libcni.NetworkConfigList, err error) {
	for i := range crowdNetworks {
		bridge := ours(full)
		bridge["bridge"] = fmt.Sprintf("%s%d", networkName, i)
		bridge["ipam"].(map[string]any)["subnet"] = fmt.Sprintf("10.%d.0.0/16", 88+i)
		s := system{plugins: []plugin{bridge}}
		list, err := s.config(fmt.Sprintf("%s%d", networkName, i))
		if err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	return lists, l.node.run(func() error {
		err := os.MkdirAll(crowdConfDir, 0o755)
		for _, list := range lists {
			err = errors.Join(err, os.WriteFile(filepath.Join(crowdConfDir, list.Name+".conflist"), list.Bytes, 0o644))
		}
		return err
	})
}

// command measures a command of bvctl, which runs in the namespaces of the node (the simulated host).
func (l *lane) command(ctx context.Context, opts options, command []string) (row commandRow, err error) {
	row = commandRow{Command: "bvctl " + strings.Join(command, " "), Containers: len(l.residents)}
	var took []time.Duration
	for range commandTurns {
		var said strings.Builder
		err := l.node.run(func() error {
			args := slices.Concat([]string{filepath.Join(opts.built, "bvctl"), "--conf-dir", crowdConfDir, "--cache-dir", stateDir + "/cache"}, command)
			cmd := exec.CommandContext(ctx, filepath.Join(opts.peers, "peak"), args...)
			cmd.Stderr = &said
			began := time.Now()
			out, err := cmd.Output()
			took = append(took, time.Since(began))
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
				row.Problems, err = true, nil
			}
			if err != nil {
				return fmt.Errorf("%s: %w: %s%s", row.Command, err, out, said.String())
			}
			return nil
		})
		if err != nil {
			return row, err
		}
		kb, cpu, err := peakUsage(said.String())
		if err != nil {
			return row, fmt.Errorf("%s: %w", row.Command, err)
		}
		row.MemoryKB, row.CPUSeconds = max(row.MemoryKB, kb), row.CPUSeconds+cpu/commandTurns
	}
	slices.Sort(took)
	row.Seconds = quantile(took, 0.5).Seconds()
	return row, nil
}

// collect measures GC of all networks. It passes a list of all containers to GC, so GC removes none.
func (l *lane) collect(ctx context.Context, lists []*libcni.NetworkConfigList) (row commandRow, err error) {
	var valid []types.GCAttachment
	for _, g := range l.residents {
		valid = append(valid, types.GCAttachment{ContainerID: g.id, IfName: containerIf})
	}
	row = commandRow{Command: fmt.Sprintf("GC of %d networks", len(lists)), Containers: len(valid)}
	before, err := l.spent()
	if err != nil {
		return row, err
	}
	var took []time.Duration
	for range commandTurns {
		err := l.node.run(func() error {
			began := time.Now()
			var err error
			for _, list := range lists {
				err = errors.Join(err, l.cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: valid}))
			}
			took = append(took, time.Since(began))
			return err
		})
		if err != nil {
			return row, fmt.Errorf("GC: %w", err)
		}
	}
	after, err := l.spent()
	row.CPUSeconds = (after.cpu - before.cpu).Seconds() / commandTurns
	slices.Sort(took)
	row.Seconds = quantile(took, 0.5).Seconds()
	return row, err
}

// printCommands writes the times of the commands as a table.
func (r *report) printCommands(w io.Writer) {
	if len(r.Commands) == 0 {
		return
	}
	fmt.Fprintln(w, "\ncommands for people, and GC")
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "command\tcontainers\tseconds\tCPU seconds\tpeak memory KB\tresult\t")
	for _, row := range r.Commands {
		fmt.Fprintf(tw, "%s\t%d\t%.2f\t%.2f\t%s\t%s\t\n", row.Command, row.Containers, row.Seconds, row.CPUSeconds,
			choose(row.MemoryKB > 0, fmt.Sprintf("%.0f", row.MemoryKB), "-"), choose(row.Problems, "problems found", ""))
	}
	_ = tw.Flush() // a failure could not be printed either
}
