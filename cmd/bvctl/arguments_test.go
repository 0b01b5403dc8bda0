package main

import (
	"io"
	"strings"
	"testing"
)

// FuzzArguments parses any words as the arguments of bvctl, without running the command.
func FuzzArguments(f *testing.F) {
	for _, words := range []string{"", "doctor c1 10.1.0.2 -o json", "leases release --address fd00::1 --force", "leases --network n", "config check x -o json", "config new --for podman --subnet 10.1.0.0/24", "inspect --conf-dir=", "repair --watch", "node --agent x", "pool -o json", "topology -o dot", "-h", "doctor \x00", "firewalld zone -- -x"} {
		f.Add(words)
	}
	f.Fuzz(func(t *testing.T, text string) {
		words := strings.Split(text, " ")
		root := newRoot()
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		cmd, rest, err := root.Find(words)
		if err == nil {
			err = cmd.ParseFlags(rest)
		}
		if err == nil {
			err = cmd.ValidateArgs(cmd.Flags().Args())
		}
		if err != nil && err.Error() == "" {
			t.Errorf("%q: an empty error", words)
		}
	})
}
