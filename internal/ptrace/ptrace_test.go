package ptrace

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKill kills echo before its first system call, in the next run before the second, and so on.
// Each echo must have printed either its whole line or nothing.
func TestKill(t *testing.T) {
	printed := map[string]int{}
	for call := 1; ; call++ {
		out, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		killed, err := Kill(call, []string{"/bin/echo", "hello"}, os.Environ(), []*os.File{nil, out, nil})
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		printed[string(text)]++
		if !killed {
			break
		}
		if call > 1000 {
			t.Fatal("echo never ends")
		}
	}
	if len(printed) != 2 || printed[""] < 5 || printed["hello\n"] < 1 {
		t.Errorf("number of runs by the text that echo printed: %v", printed)
	}
}

// TestRun checks that Run stops echo before the system call that prints its line. The file must be
// empty at this time. When echo has ended, the file must contain the line.
func TestRun(t *testing.T) {
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	size := func() int64 {
		info, err := out.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	writes := 0
	status, err := Run([]string{"/bin/echo", "hello"}, os.Environ(), []*os.File{nil, out, nil}, func(c Call) bool {
		if c.Number == unix.SYS_WRITE && c.File() == out.Name() {
			writes++
			if got := size(); got != 0 {
				t.Errorf("%d bytes are written before the call", got)
			}
		}
		return true
	})
	if err != nil || !status.Exited() || status.ExitStatus() != 0 {
		t.Fatalf("echo ended with status %#x: %v", status, err)
	}
	if got := size(); writes != 1 || got != 6 {
		t.Errorf("echo wrote %d times, %d bytes in all, want 6 bytes at once", writes, got)
	}
}
