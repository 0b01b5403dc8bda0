package main

import (
	"io"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// FuzzArguments parses any words as the arguments of bvctl, without running the command. It also
// looks for a container with these words.
func FuzzArguments(f *testing.F) {
	for _, words := range []string{"", "doctor c1 10.1.0.2 -o json", "leases release --address fd00::1 --force", "leases --network n", "inspect --conf-dir=", "repair --watch", "node --agent x", "topology -o dot", "-h", "doctor \x00", "firewalld zone -- -x"} {
		f.Add(words)
	}
	c := &inventory.Container{}
	c.Attachment = setup.Attachment{Network: "net", Container: "c1", Interface: "eth0"}
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
		for _, word := range words {
			_ = filter{address: word}.check()
			if kind := matches(c, word); kind != noMatch && (word == "" || !strings.HasPrefix("c1", word) && word != c.Pod) {
				t.Errorf("container c1 matches %q", word)
			}
		}
	})
}
