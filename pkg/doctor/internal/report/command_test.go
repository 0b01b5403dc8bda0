package report

import (
	"os/exec"
	"strings"
	"testing"
)

// FuzzCommand checks that a shell passes each word of a command on as it is. A container can choose
// the names of its links, and "bvctl doctor --fix" gives such names to a shell.
func FuzzCommand(f *testing.F) {
	for _, word := range []string{"", "eth0", "$(id)", "`id`", "a'b", "'", `\'`, "a\nb", "-n", "*", "~", "a;b", "\xff", "é"} {
		f.Add(word)
	}
	f.Fuzz(func(t *testing.T, word string) {
		if strings.ContainsRune(word, 0) {
			return // no name contains a zero byte
		}
		out, err := exec.Command("/bin/sh", "-c", "printf %s. "+Command("%s", word)).CombinedOutput()
		if string(out) != word+"." || err != nil {
			t.Errorf("got %q, %v, want %q", out, err, word+".")
		}
	})
}
