package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestDocumented checks that docs/bvctl.md names every command and every option.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/bvctl.md")
	if err != nil {
		t.Fatal(err)
	}
	wantNamed := func(what string) {
		if !strings.Contains(string(page), what) {
			t.Errorf("docs/bvctl.md does not name %s", what)
		}
	}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		if c.HasParent() {
			wantNamed("`" + c.CommandPath())
		}
		for _, option := range regexp.MustCompile(`--[\w-]+`).FindAllString(c.LocalFlags().FlagUsages(), -1) {
			wantNamed("`" + option + "`")
		}
		for _, below := range c.Commands() {
			visit(below)
		}
	}
	visit(newRoot())
}
