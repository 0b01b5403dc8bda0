// Package kill ends programs at a chosen system call, for tests of what they leave.
package kill

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// At runs a program until its threads together are about to make the given system
// call, counted from 1, and kills it there: that call is not made any more. Before
// that many the program may have ended by itself. files are its standard input and
// so on. It needs no privileges for a program of one's own.
func At(call int, argv, env []string, files []*os.File) (killed bool, err error) {
	runtime.LockOSThread() // ptrace(2): only the thread that traces may ask
	defer runtime.UnlockOSThread()
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Env: env, Files: files, Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		return false, err
	}
	defer func() { _ = p.Release() }() // it was waited for
	t := tracer{pid: p.Pid, within: map[int]bool{}}
	if err := t.begin(); err != nil {
		return false, errors.Join(err, p.Kill())
	}
	for {
		at, err := t.next()
		if err != nil || at.thread == 0 {
			return killed, err
		}
		if at.entering {
			call--
		}
		if call == 0 && !killed {
			killed = true
			if err := p.Kill(); err != nil {
				return false, err
			}
		}
		if err := at.resume(); err != nil {
			return false, err
		}
	}
}

// tracer follows the threads of a process.
type tracer struct {
	pid    int
	within map[int]bool // by thread: it is in a system call
}

// begin waits for the program to be loaded and lets it go.
func (t *tracer) begin() error {
	var status unix.WaitStatus
	if _, err := wait(t.pid, &status); err != nil {
		return err
	}
	if !status.Stopped() {
		return fmt.Errorf("it ended before it began: %#x", status)
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(t.pid, options); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return unix.PtraceSyscall(t.pid, 0)
}

// stop is where a thread waits for its tracer.
type stop struct {
	thread   int // 0: the process has ended
	ended    bool
	entering bool // it is about to make a system call
	signal   int  // that it is to get
}

// next waits until a thread stops or ends.
func (t *tracer) next() (at stop, err error) {
	var status unix.WaitStatus
	if at.thread, err = wait(-1, &status); err != nil {
		return stop{}, err
	}
	if status.Exited() || status.Signaled() {
		if at.ended = true; at.thread == t.pid {
			at.thread = 0
		}
		return at, nil
	}
	switch signal := status.StopSignal(); signal {
	case unix.SIGTRAP | 0x80: // PTRACE_O_TRACESYSGOOD
		t.within[at.thread] = !t.within[at.thread]
		at.entering = t.within[at.thread]
	case unix.SIGTRAP, unix.SIGSTOP: // a clone, and how its thread begins
	default:
		at.signal = int(signal)
	}
	return at, nil
}

// resume lets the thread go on to its next stop.
func (at stop) resume() error {
	if at.ended {
		return nil
	}
	err := unix.PtraceSyscall(at.thread, at.signal)
	if errors.Is(err, unix.ESRCH) {
		return nil // it was killed
	}
	return err
}

// wait waits for a child of this thread, threads of it included.
func wait(pid int, status *unix.WaitStatus) (int, error) {
	for {
		tid, err := unix.Wait4(pid, status, unix.WALL|unix.WNOTHREAD, nil)
		if !errors.Is(err, unix.EINTR) {
			return tid, err
		}
	}
}
