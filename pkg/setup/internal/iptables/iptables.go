package iptables

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// lockWait is how long a process of iptables waits for the xtables lock, in seconds.
const lockWait = "10"

// Program is a program of iptables with the table that it reads and writes.
type Program struct{ Path, Table string }

// List returns a chain as commands for iptables: the chain itself, then its rules.
func (p Program) List(chain string) ([]string, error) {
	out, err := p.output("-S", chain)
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n"), err
}

// HasChain reports whether a chain exists.
func (p Program) HasChain(chain string) (bool, error) { return exists(p.Run("-S", chain, "1")) }

// HasRule reports whether a chain has a rule.
func (p Program) HasRule(chain string, rule ...string) (bool, error) {
	return exists(p.Run(append([]string{"-C", chain}, rule...)...))
}

// exists interprets the error of a command that looks for a chain or a rule.
func exists(err error) (bool, error) {
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) && failed.ExitCode() == 1 { // other failures have other exit statuses
		return false, nil
	}
	return err == nil, err
}

// Insert inserts a rule at a position in a chain. The first position is 1.
func (p Program) Insert(chain string, position int, rule ...string) error {
	return p.Run(append([]string{"-I", chain, strconv.Itoa(position)}, rule...)...)
}

// DeleteIfExists deletes a rule, if the chain has the rule.
func (p Program) DeleteIfExists(chain string, rule ...string) error {
	exists, err := p.HasRule(chain, rule...)
	if err == nil && exists {
		err = p.Run(append([]string{"-D", chain}, rule...)...)
	}
	return err
}

// Run runs the program with a command and the options of the command.
func (p Program) Run(args ...string) error {
	_, err := p.output(args...)
	return err
}

// output does what Run does, and returns the standard output of the program. The error contains the
// standard error of the program in one line, without the advice to run "iptables -h".
func (p Program) output(args ...string) (string, error) {
	cmd := exec.Command(p.Path, slices.Concat([]string{"-t", p.Table}, args, []string{"--wait", lockWait})...)
	out, err := cmd.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		lines := slices.DeleteFunc(strings.Split(string(failed.Stderr), "\n"), func(line string) bool {
			return strings.TrimSpace(line) == "" || strings.HasPrefix(line, "Try `")
		})
		err = fmt.Errorf("running %v: %w: %s", cmd.Args, err, strings.Join(lines, ", "))
	}
	return string(out), err
}
