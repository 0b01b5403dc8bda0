package doctor

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/doctor"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
)

// carrierWait is the longest time that the kernel takes to report a change of a link's carrier
// (net/core/link_watch.c).
const carrierWait = time.Second

// asCalled is the definition of a shell function bvctl. The function runs this program with the
// same --conf-dir, --data-dir and --cache-dir as this process, because the remedies call bvctl
// without these options.
const asCalled = `bvctl() { "$BVCTL" --conf-dir "$CONF_DIR" --data-dir "$DATA_DIR" --cache-dir "$CACHE_DIR" "$@"; }; `

// fixAll runs the command of each problem once. It returns the commands that it has run. The caller
// checks whether the problems remain.
func fixAll(inv *inventory.Inventory, reports []*doctor.Report, w io.Writer) (tried map[string]bool, err error) {
	tried = map[string]bool{}
	self, err := os.Executable() // needed because many of the remedies are "bvctl repair"
	if err != nil {
		return nil, err
	}
	each(reports, func(s doctor.Station) {
		if tried[s.Remedy] {
			return
		}
		tried[s.Remedy] = true
		fmt.Fprintln(w, "+", s.Remedy)
		cmd := exec.Command("/bin/sh", "-c", asCalled+s.Remedy)
		cmd.Env = append(os.Environ(), "PATH="+cli.SystemPath, "BVCTL="+self, "CONF_DIR="+inv.ConfDir, "DATA_DIR="+inv.DataDir, "CACHE_DIR="+inv.CacheDir)
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(w, "%v: %s", err, out)
		}
	})
	if len(tried) > 0 {
		time.Sleep(carrierWait)
	}
	return tried, nil
}

// printIneffective prints each command that was run but has not fixed its problem.
func printIneffective(reports []*doctor.Report, tried map[string]bool, w io.Writer) {
	seen := map[string]bool{}
	each(reports, func(s doctor.Station) {
		if tried[s.Remedy] && !seen[s.Remedy] {
			seen[s.Remedy] = true
			fmt.Fprintf(w, "no effect: %s\n  %s: %s\n", s.Remedy, s.Name, s.What)
		}
	})
}

// each calls f for each problem that a command can fix.
func each(reports []*doctor.Report, f func(doctor.Station)) {
	for _, r := range reports {
		for _, s := range r.Stations {
			if s.State == doctor.Bad && !s.Advice {
				f(s)
			}
		}
	}
}
