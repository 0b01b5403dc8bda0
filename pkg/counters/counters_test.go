package counters

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const childVar = "COUNTERS_TEST_CHILD"

// TestMain runs the test's executable as a child process if the variable childVar is set in the
// environment. The child counts as many ADDs as childVar says, or counts without end if childVar is
// 0.
func TestMain(m *testing.M) {
	text, child := os.LookupEnv(childVar)
	if !child {
		os.Exit(m.Run())
	}
	times, _ := strconv.Atoi(text) // 0 means without end
	for i := 0; times == 0 || i < times; i++ {
		if err := Add(os.Args[1], 7*time.Millisecond, 100); err != nil {
			panic(err)
		}
	}
}

// child starts a child process that counts ADDs in a file. It counts without end if times is 0.
func child(t *testing.T, path string, times int) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", path)
	cmd.Env, cmd.Stderr = append(os.Environ(), childVar+"="+strconv.Itoa(times)), os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestAdd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "counters")
	if err := Add(path, time.Millisecond, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	for _, add := range []struct {
		took time.Duration
		code uint
	}{{time.Millisecond, 0}, {2500 * time.Microsecond, 0}, {2501 * time.Microsecond, 0}, {25 * time.Second, 11}, {time.Minute, 999}, {time.Minute, 127}} {
		if err := Add(path, add.took, add.code); err != nil {
			t.Fatal(err)
		}
	}
	if err := Create(path); err != nil { // as an agent of a new release does
		t.Fatal(err)
	}
	want := Counts{Classes: [11]uint64{0: 2, 1: 1, 9: 1, 10: 2}, Sum: 145*time.Second + 6001*time.Microsecond}
	want.Failed[0], want.Failed[11], want.Failed[127] = 1, 1, 1
	got, err := Read(path)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
}

// TestProcesses checks that no ADD is lost if several processes count at the same time. If a
// process is killed, only the ADD that it was counting may be missing in some of the counters.
func TestProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counters")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	const processes, times = 4, 2000
	var all []*exec.Cmd
	for range processes {
		all = append(all, child(t, path, times))
	}
	for _, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	want := Counts{Sum: processes * times * 7 * time.Millisecond}
	want.Classes[2], want.Failed[100] = processes*times, processes*times
	got, err := Read(path)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("%v, -want +got\n%s", err, diff)
	}
	const kills = 20
	for range kills {
		before := got.Classes[2]
		cmd := child(t, path, 0)
		for got.Classes[2] == before && err == nil {
			time.Sleep(time.Millisecond)
			got, err = Read(path)
		}
		_ = cmd.Process.Kill() // the process does not end by itself
		_ = cmd.Wait()         // "signal: killed"
	}
	if got, err = Read(path); err != nil {
		t.Fatal(err)
	}
	sum := uint64(got.Sum / (7 * time.Millisecond))
	if c := got.Classes[2]; c < sum || c > sum+kills || sum < got.Failed[100] || sum > got.Failed[100]+kills {
		t.Errorf("%d ADDs, the time of %d, %d errors", c, sum, got.Failed[100])
	}
}

// TestOther checks a file that does not contain counters. Add must not change this file, and Create
// must replace it.
func TestOther(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "short": "x", "another layout": string(make([]byte, size))} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "counters")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := Add(path, time.Millisecond, 0); !errors.Is(err, errOther) {
				t.Errorf("Add: %v", err)
			}
			if text, err := os.ReadFile(path); string(text) != content || err != nil {
				t.Errorf("changed: %q, %v", text, err)
			}
			if err := Create(path); err != nil {
				t.Fatal(err)
			}
			if err := Add(path, time.Millisecond, 0); err != nil {
				t.Errorf("after Create: %v", err)
			}
		})
	}
}
