package cnitool

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// shells has a script for each shell. The script gets the words of a command line as its arguments,
// and prints what the shell offers for the last word. Each script runs the completion that bvctl
// generates for the shell, as a package installs it.
var shells = map[string]string{
	"bash": `. /usr/share/bash-completion/bash_completion
		. <(bvctl completion bash)
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_TYPE=63
		COMP_POINT=${#COMP_LINE}
		compopt() { :; } # bash permits it only after a Tab
		__start_bvctl
		printf '%s\n' "${COMPREPLY[@]%% *}"`,
	"zsh": `compdef() {}
		. <(bvctl completion zsh)
		words=("$@") CURRENT=$#
		_describe() { print -l -- "${(@)completions%%:*}" }
		_bvctl`,
	"fish": `bvctl completion fish | source
		complete -C "$argv" | string replace -r '\t.*' ''; true`,
}

// TestCompletion checks what bash, zsh and fish offer for the words of bvctl.
func TestCompletion(t *testing.T) {
	t.Parallel()
	n := newNode(t, dual, "nft")
	n.env = []string{"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"}
	c := n.containers(2)
	n.must("add", c[0])
	n.env = nil
	n.must("add", c[1])
	id := setuptest.Run(t, "sh", "-c", `sed 's/.*"containerId":"\([^"]*\)".*/\1/' $(grep -l '"shop"' /var/lib/cni/results/*)`)
	setuptest.Run(t, "sh", "-c", "mkdir -p /etc/cni/net.d; mount --bind /run/net.d /etc/cni/net.d")
	for _, tt := range []struct {
		words   string
		offered []string
		not     string
	}{
		{"in", []string{"inspect"}, "topology"},
		{"", []string{"doctor", "leases", "metrics", "repair"}, "firewalld"},
		{"leases ", []string{"check", "release"}, "doctor"},
		{"doctor --re", []string{"--report"}, "--fix"},
		{"doctor -o ", []string{"json", "text"}, "shop/web"},
		{"doctor ", []string{"shop/web", "10.88.0.2", "10.88.0.3", id}, "net"},
		{"doctor sh", []string{"shop/web"}, "10.88.0.2"},
		{"doctor shop/web 10.88", []string{"10.88.0.2", "10.88.0.3"}, "shop/web"},
		{"leases release --network ", []string{"net"}, "10.88.0.2"},
		{"leases release --container cnitool-", []string{id}, "net"},
		{"pool -o ", []string{"json", "table"}, "net"},
		{"leases --address 10", []string{"10.88.0.2", "10.88.0.3"}, "shop/web"},
	} {
		for shell, script := range shells {
			if missing(shell) != nil {
				continue
			}
			offers := complete(t, shell, script, strings.Split("bvctl "+tt.words, " "))
			for _, want := range tt.offered {
				if !slices.Contains(offers, want) {
					t.Errorf("%s, bvctl %s: offers %q, want %s", shell, tt.words, offers, want)
				}
			}
			if slices.Contains(offers, tt.not) {
				t.Errorf("%s, bvctl %s: offers %q, not wanted: %s", shell, tt.words, offers, tt.not)
			}
		}
	}
	for shell := range shells {
		t.Run(shell, func(t *testing.T) {
			if err := missing(shell); err != nil {
				t.Skip("LISTED SKIP: " + err.Error() + ": install zsh, fish and bash-completion")
			}
		})
	}
}

// missing returns an error if a shell, or its library for completions, is not installed.
func missing(shell string) error {
	_, err := exec.LookPath(shell)
	if shell == "bash" && err == nil {
		_, err = os.Stat("/usr/share/bash-completion/bash_completion")
	}
	return err
}

// complete returns what a shell offers for the last of the words.
func complete(t *testing.T, shell, script string, words []string) (offers []string) {
	t.Helper()
	args := map[string][]string{"bash": {"--norc", "-c", script, "bash"}, "zsh": {"-f", "-c", script, "zsh"}, "fish": {"-N", "-c", script}}[shell]
	cmd := exec.Command(shell, append(args, words...)...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_DATA_HOME="+home)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s, %q: %v: %s", shell, words, err, out)
	}
	return strings.Fields(string(out))
}
