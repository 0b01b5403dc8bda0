package cnitool

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestPrintable checks that bvctl never prints the terminal escape sequences that a port's alias
// contains, and that the SVG drawing is valid XML.
func TestPrintable(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft")
	setuptest.Run(t, "sh", "-ec", `ip link add br0 up type bridge; ip link add vethaaaaaaaaaaa up type veth peer name other
		ip link add vethbbbbbbbbbbb up type veth peer name another; ip link set vethbbbbbbbbbbb master br0 alias "$(printf 'bridgeveth/n/c\nfaked/eth0')"
		ip link set vethaaaaaaaaaaa master br0 alias "$(printf 'bridgeveth/n\033]0;title\007/c\033[31m\302\233\342\200\256\377\001/eth\1770')"`)
	for _, args := range [][]string{
		{"inspect"}, {"inspect", "-o", "json"}, {"topology"}, {"topology", "-o", "dot"}, {"topology", "-o", "mermaid"}, {"topology", "-o", "svg"},
		{"topology", "-o", "json"}, {"doctor"}, {"doctor", "-o", "json"}, {"leases", "check"}, {"doctor", "\033[31m"},
	} {
		cmd := exec.Command(filepath.Join(programs, "bvctl"), append([]string{"--conf-dir", "/run/net.d"}, args...)...)
		var trouble strings.Builder
		cmd.Stderr = &trouble
		out, err := cmd.Output()
		var status *exec.ExitError
		if err != nil && !errors.As(err, &status) {
			t.Fatal(err)
		}
		for _, said := range []string{string(out), trouble.String()} {
			if strings.Contains(said, "faked") {
				t.Errorf("bvctl %q prints two lines of an alias: %q", args, said)
			}
			if i := strings.IndexFunc(said, func(c rune) bool { return c != '\n' && c != '\t' && !unicode.IsPrint(c) }); i >= 0 || !utf8.ValidString(said) {
				t.Errorf("bvctl %q prints %q", args, said[max(0, i-20):])
			}
		}
		if args[0] == "inspect" && !strings.Contains(string(out), "vethaaaaaaaaaaa") {
			t.Errorf("bvctl %q does not show the link: the test proves nothing: %s", args, out)
		}
		switch args[len(args)-1] {
		case "json":
			if len(out) > 0 && !json.Valid(out) {
				t.Errorf("bvctl %q prints invalid JSON: %s", args, out)
			}
		case "svg":
			for d := xml.NewDecoder(strings.NewReader(string(out))); ; {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("bvctl %q prints invalid XML: %v", args, err)
				}
			}
		}
	}
}
