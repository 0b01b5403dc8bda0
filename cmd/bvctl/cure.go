package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/doctor"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
)

// carrierWait is how long the kernel may take to see that a link has a carrier
// (net/core/link_watch.c).
const carrierWait = time.Second

// systemPath is where a cure looks for its programs, on NixOS too. Elsewhere in PATH, and in
// the folder of bvctl itself, may be a CNI plugin that is called like one of them: "bridge"
// runs without arguments, prints its version and ends with 0.
const systemPath = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin:/run/current-system/sw/bin"

// asCalled is bvctl as a shell function, with the folders that this process was given.
const asCalled = `bvctl() { "$BVCTL" --conf-dir "$CONF_DIR" --data-dir "$DATA_DIR" --cache-dir "$CACHE_DIR" "$@"; }; `

// cure runs the commands of what is bad, each once, and returns those. Whether they cured
// anything is for another look to say.
func cure(inv *inventory.Inventory, reports []*doctor.Report, w io.Writer) (tried map[string]bool, err error) {
	tried = map[string]bool{}
	self, err := os.Executable() // many cures are "bvctl repair"
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
		cmd.Env = append(os.Environ(), "PATH="+systemPath, "BVCTL="+self, "CONF_DIR="+inv.ConfDir, "DATA_DIR="+inv.DataDir, "CACHE_DIR="+inv.CacheDir)
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(w, "%v: %s", err, out)
		}
	})
	if len(tried) > 0 {
		time.Sleep(carrierWait)
	}
	return tried, nil
}

// vain says which of the commands that were run have cured nothing.
func vain(reports []*doctor.Report, tried map[string]bool, w io.Writer) {
	said := map[string]bool{}
	each(reports, func(s doctor.Station) {
		if tried[s.Remedy] && !said[s.Remedy] {
			said[s.Remedy] = true
			fmt.Fprintf(w, "in vain: %s\n  %s: %s\n", s.Remedy, s.Name, s.What)
		}
	})
}

// each calls f with what is bad and has a command that cures it.
func each(reports []*doctor.Report, f func(doctor.Station)) {
	for _, r := range reports {
		for _, s := range r.Stations {
			if s.State == doctor.Bad && !s.Advice {
				f(s)
			}
		}
	}
}
