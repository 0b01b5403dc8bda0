package ptrace

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// everyVar is the environment variable for thorough runs: with the value n, KillEach kills before
// each n-th system call.
const everyVar = "KILL_EVERY"

// Traced calls a program. If before is not nil, it passes before to Run.
type Traced func(before func(Call) bool)

// Killing is a call that KillEach kills, with the calls before and after it.
type Killing struct {
	Prepare func()            // restores the state in which Run starts
	Run     Traced            // the call that is killed
	Cure    Traced            // the ordinary call that follows a kill
	Check   func(when string) // checks the state after Cure; when describes the kill for error messages
}

// KillEach kills a call in each round at a later system call, and checks what the next call makes of
// the remains. In every second round, it also kills this next call, and then repeats it. The
// parameter rounds is the number of rounds. They are spread evenly over the system calls that can
// change something outside of the process. 0 means a round for each of these. If the environment
// variable KILL_EVERY is 1, there is a round for each system call instead, and if it is n, for each
// n-th.
//
// Before the first round, KillEach checks the state after calls that are not killed.
func KillEach(t testing.TB, rounds int, k Killing) {
	t.Helper()
	counts, every := changes, thorough(t)
	if every > 0 {
		counts = func(Call) bool { return true }
	}
	// killed makes a call that is killed at the system call with the number in the parameter at.
	// made is the number of system calls until then.
	killed := func(call Traced, at int) (made int) {
		call(func(c Call) bool {
			if counts(c) {
				made++
			}
			return made != at
		})
		return made
	}
	k.Prepare()
	calls := killed(k.Run, -1)
	k.Cure(nil)
	k.Check("not killed")
	k.Prepare()
	killed(k.Run, 1+calls/2)
	again := killed(k.Cure, -1)
	k.Check("killed half-way")
	switch {
	case every > 0:
		rounds = max(1, calls/every)
	case rounds == 0:
		rounds = calls
	}
	reached := 0
	for i := range rounds {
		at := 1 + i*calls/rounds
		k.Prepare()
		when := fmt.Sprintf("killed at system call %d of %d", at, calls)
		if made := killed(k.Run, at); made == at {
			reached++
		} else { // the call made fewer system calls this time: while it waits for the kernel, it repeats some
			calls = made
		}
		if i%2 == 1 {
			second := 1 + i*again/rounds
			when += fmt.Sprintf(", and the next call at %d of %d", second, again)
			killed(k.Cure, second)
		}
		k.Cure(nil)
		k.Check(when)
		if t.Failed() {
			t.FailNow()
		}
	}
	if reached < rounds/2 {
		t.Errorf("only %d of %d rounds killed the call", reached, rounds)
	}
	t.Logf("killed %d times at %d system calls", reached, calls)
}

// thorough returns the number in the environment variable KILL_EVERY, or 0 if the variable is not set.
func thorough(t testing.TB) (every int) {
	t.Helper()
	value := os.Getenv(everyVar)
	if value == "" {
		return 0
	}
	every, err := strconv.Atoi(value)
	if err != nil || every < 1 {
		t.Fatalf("%s: %q is no number above 0", everyVar, value)
	}
	return every
}

// changing are system calls that can change something outside of the process. The last ones start
// or end a process.
var changing = []uint64{
	unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT,
	unix.SYS_MKDIRAT, unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FLOCK, unix.SYS_SETNS,
	unix.SYS_SETSOCKOPT, unix.SYS_CLONE, unix.SYS_CLONE3, unix.SYS_WAIT4, unix.SYS_EXIT_GROUP,
}

// changes reports whether a system call can change something outside of the process.
func changes(c Call) bool {
	if c.Number == unix.SYS_OPENAT {
		return c.Args[2]&unix.O_CREAT != 0
	}
	return slices.Contains(changing, c.Number)
}
