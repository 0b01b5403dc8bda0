// Package ptrace runs programs under ptrace(2), for tests that act at a chosen system call:
// tests that kill the program there, or change what the program works on.
package ptrace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is a system call that a thread is about to make.
type Call struct {
	Number uint64 // such as unix.SYS_WRITE
	Args   [6]uint64
	thread int
}

// File returns the name of the file that the call's first argument describes, as /proc shows
// it, or "" without such a file.
func (c Call) File() string {
	name, _ := os.Readlink(filepath.Join("/proc", strconv.Itoa(c.thread), "fd", strconv.FormatUint(c.Args[0], 10)))
	return name
}

// Kill runs a program and kills it before a system call that its threads make, counted from 1
// over all threads. The kernel does not make that call. killed is false if the program has ended
// before. files are its standard input and so on. Kill needs no privileges for a program of the
// same user.
func Kill(call int, argv, env []string, files []*os.File) (killed bool, err error) {
	status, err := Run(argv, env, files, func(Call) bool {
		call--
		return call > 0
	})
	return status.Signaled() && status.Signal() == unix.SIGKILL, err
}

// Run runs a program and calls before with each system call that one of its threads is about to
// make. The thread waits until before returns. If before returns false, Run kills the program,
// and the kernel does not make the call. Programs that the program starts are not traced. Run
// returns how the program has ended.
func Run(argv, env []string, files []*os.File, before func(Call) bool) (status unix.WaitStatus, err error) {
	runtime.LockOSThread() // ptrace(2): only the thread that traces may ask
	defer runtime.UnlockOSThread()
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Env: env, Files: files, Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		return 0, err
	}
	defer func() { _ = p.Release() }() // Run waits for it by wait4(2)
	if err := begin(p.Pid); err != nil {
		return 0, errors.Join(err, p.Kill())
	}
	killed := false
	for {
		thread, err := wait(-1, &status)
		if err != nil {
			return status, err
		}
		if !status.Stopped() {
			if thread == p.Pid {
				return status, nil
			}
			continue
		}
		if status.StopSignal() == syscallStop && !killed {
			if call, entering := about(thread); entering && !before(call) {
				killed = true
				if err := p.Kill(); err != nil {
					return status, err
				}
			}
		}
		if err := resume(thread, status.StopSignal()); err != nil {
			return status, err
		}
	}
}

// syscallStop is the signal of a stop before or after a system call: PTRACE_O_TRACESYSGOOD.
const syscallStop = unix.SIGTRAP | 0x80

// begin waits for the program to be loaded and lets it go.
func begin(pid int) error {
	var status unix.WaitStatus
	if _, err := wait(pid, &status); err != nil {
		return err
	}
	if !status.Stopped() {
		return fmt.Errorf("the program has ended before its first instruction: status %#x", status)
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(pid, options); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return resume(pid, 0)
}

// resume lets a thread go on to its next stop, with the signal that has stopped it unless that
// signal comes from ptrace(2): SIGTRAP at a clone, SIGSTOP as its new thread begins.
func resume(thread int, signal syscall.Signal) error {
	switch signal {
	case syscallStop, unix.SIGTRAP, unix.SIGSTOP:
		signal = 0
	}
	err := unix.PtraceSyscall(thread, int(signal))
	if errors.Is(err, unix.ESRCH) {
		return nil // it was killed
	}
	return err
}

// about returns the system call that a stopped thread is about to make. entering is false where
// the thread has just made it, or was killed.
func about(thread int) (call Call, entering bool) {
	var info struct { // struct ptrace_syscall_info, Linux 5.3
		op                 uint8
		_                  [3]uint8
		arch               uint32
		instruction, stack uint64
		number             uint64
		args               [6]uint64
		_                  [2]uint64
	}
	const entry = 1 // PTRACE_SYSCALL_INFO_ENTRY
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(thread), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 || info.op != entry {
		return Call{}, false
	}
	return Call{Number: info.number, Args: info.args, thread: thread}, true
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
