package kill

import (
	"os"
	"testing"
)

// TestAt kills echo at each of its system calls: it has said what it says, or not.
func TestAt(t *testing.T) {
	said := map[string]int{}
	for call := 1; ; call++ {
		out, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		killed, err := At(call, []string{"/bin/echo", "hello"}, os.Environ(), []*os.File{nil, out, nil})
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		said[string(text)]++
		if !killed {
			break
		}
		if call > 1000 {
			t.Fatal("echo never ends")
		}
	}
	if len(said) != 2 || said[""] < 5 || said["hello\n"] < 1 {
		t.Errorf("times that it said something: %v", said)
	}
}
