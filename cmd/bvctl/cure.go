package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/doctor"
)

// carrierWait is how long the kernel may take to see that a link has a carrier
// (net/core/link_watch.c).
const carrierWait = time.Second

// systemPath comes first where a cure looks for its programs. Elsewhere in PATH, and in the
// folder of bvctl itself, may be a CNI plugin that is called like one of them: "bridge" runs
// without arguments, prints its version and ends with 0.
const systemPath = "/usr/sbin:/usr/bin:/sbin:/bin"

// cure runs the commands of what is bad, each once. Whether they cured anything is for the
// caller to see.
func cure(reports []*doctor.Report, w io.Writer) error {
	done := map[string]bool{}
	self, err := os.Executable() // many cures are "bvctl repair"
	if err != nil {
		return err
	}
	for _, r := range reports {
		for _, s := range r.Stations {
			if s.State != doctor.Bad || s.Advice || done[s.Remedy] {
				continue
			}
			done[s.Remedy] = true
			fmt.Fprintln(w, "+", s.Remedy)
			cmd := exec.Command("/bin/sh", "-c", `bvctl() { "$BVCTL" "$@"; }; `+s.Remedy)
			cmd.Env = append(os.Environ(), "PATH="+systemPath+":"+os.Getenv("PATH"), "BVCTL="+self)
			if out, err := cmd.CombinedOutput(); err != nil {
				fmt.Fprintf(w, "%v: %s", err, out)
			}
		}
	}
	if len(done) > 0 {
		time.Sleep(carrierWait)
	}
	return nil
}
