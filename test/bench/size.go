package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// size holds the size of a plugin's file and its peak memory.
type size struct {
	Plugin   string  `json:"plugin"`
	BinaryKB float64 `json:"binaryKb"`
	MemoryKB float64 `json:"memoryKb"` // peak; median of several ADDs
}

const (
	sizeOurs = "bridgeveth"
	sizePeer = "bridge"
	sizeRuns = 9
)

// measureSizes returns, for each plugin, the size of its file and the peak memory of its ADD. The
// memory includes the IPAM plugin.
func measureSizes(opts options) (sizes []size, err error) {
	for _, s := range []struct{ key, plugin, dir string }{{keyFull, sizeOurs, opts.bin}, {keyPlain, sizePeer, opts.peers}} {
		if !slices.Contains(opts.systems, s.key) {
			continue
		}
		path := filepath.Join(s.dir, s.plugin)
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		memory, err := measureMemory(findSystem(s.key), opts, path)
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, size{s.plugin, float64(info.Size()) / 1024, memory})
	}
	return sizes, nil
}

// measureMemory returns the peak memory of a plugin's ADD in kilobytes: the median of several runs.
// It runs DEL after each ADD.
func measureMemory(s *system, opts options, path string) (median float64, err error) {
	l, err := newLane(s, opts, 1)
	if err != nil {
		return 0, err
	}
	peak := filepath.Join(opts.peers, "peak")
	var all []float64
	_, err = l.node.each(l.visitors, 1, func(g *guest) error {
		for range sizeRuns {
			for _, verb := range []string{"ADD", "DEL"} {
				out, err := l.plugin(verb, g, peak, path)
				if err != nil {
					return err
				}
				kb, _, err := peakUsage(out)
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				if verb == "ADD" {
					all = append(all, kb)
				}
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// peakUsage returns the two numbers that the program peak has written to standard error.
func peakUsage(stderr string) (kb, cpuSeconds float64, err error) {
	stderr = strings.TrimSpace(stderr)
	if _, err = fmt.Sscan(stderr[strings.LastIndexByte(stderr, '\n')+1:], &kb, &cpuSeconds); err != nil {
		return 0, 0, fmt.Errorf("read peak memory from %q: %w", stderr, err)
	}
	return kb, cpuSeconds, nil
}

// plugin runs a program as the first plugin of the lane's system. The program gets the input that
// libcni passes to this plugin. plugin returns the standard error of the program.
func (l *lane) plugin(verb string, g *guest, program ...string) (string, error) {
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID=memory", "CNI_NETNS="+g.netns, "CNI_IFNAME="+containerIf,
		"CNI_PATH="+filepath.Dir(program[len(program)-1]))
	conf := strings.TrimSuffix(string(l.list.Plugins[0].Bytes), "}") + `,"cniVersion":"1.1.0","name":"` + networkName + `"}`
	cmd.Stdin = strings.NewReader(conf)
	var said strings.Builder
	cmd.Stderr = &said
	if out, err := cmd.Output(); err != nil {
		return "", fmt.Errorf("%s of %v: %w: %s%s", verb, program, err, out, said.String())
	}
	return said.String(), nil
}
