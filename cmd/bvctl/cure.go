package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/doctor"
)

// carrierWait is how long the kernel may take to see that a link has a carrier
// (net/core/link_watch.c).
const carrierWait = time.Second

// cure runs the commands of what is bad, each once.
func cure(reports []*doctor.Report, w io.Writer) error {
	done := map[string]bool{}
	self, err := os.Executable() // bvctl is in many of them
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
			cmd := exec.Command("sh", "-c", s.Remedy)
			cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(self)+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
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
