// Package ptrace runs programs under ptrace(2). Tests use it to kill a program before a chosen
// system call, or to change the host before this call.
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

// File returns the name of the file whose descriptor is the first argument of the call. The name is
// from /proc. File returns "" if there is no such file.
func (c Call) File() string {
	name, _ := os.Readlink(filepath.Join("/proc", strconv.Itoa(c.thread), "fd", strconv.FormatUint(c.Args[0], 10)))
	return name
}

// Data returns the beginning of the buffer to which the second argument of the call points, such as
// the buffer of write(2). size is the number of bytes.
func (c Call) Data(size int) ([]byte, error) {
	mem, err := os.Open(filepath.Join("/proc", strconv.Itoa(c.thread), "mem"))
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	data := make([]byte, size)
	_, err = mem.ReadAt(data, int64(c.Args[1]))
	return data, err
}

// Kill starts a program and kills it just before one of its system calls. The parameter call is the
// number of this system call, counted from 1 over all threads of the program. killed is false if
// the program makes fewer system calls. files are the program's standard input, output and error.
// Kill needs no privileges if the program runs as the caller's user.
func Kill(call int, argv, env []string, files []*os.File) (killed bool, err error) {
	status, err := Run(argv, env, files, func(Call) bool {
		call--
		return call > 0
	})
	return status.Signaled() && status.Signal() == unix.SIGKILL, err
}

// Run runs a program. The parameter before is a function: Run calls it ahead of each system call of
// the program's threads, and the thread waits until it returns. If it returns false, Run kills the
// program, and the kernel does not make the system call. Run does not trace other programs that the
// program starts. status says how the program has ended.
func Run(argv, env []string, files []*os.File, before func(Call) bool) (status unix.WaitStatus, err error) {
	runtime.LockOSThread() // ptrace(2): only the tracing thread may make requests
	defer runtime.UnlockOSThread()
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Env: env, Files: files, Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		return 0, err
	}
	defer func() { _ = p.Release() }() // Run has waited for the process by wait4(2)
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
			if call, entering := nextCall(thread); entering && !before(call) {
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

// syscallStop is the signal with which a traced thread stops before and after each system call. The
// option PTRACE_O_TRACESYSGOOD adds the bit 0x80 (ptrace(2)).
const syscallStop = unix.SIGTRAP | 0x80

// begin waits until the kernel has loaded the program, and then lets it run to its first system
// call.
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

// resume lets a stopped thread run to its next stop. The thread receives the signal that has
// stopped it, unless ptrace(2) has caused this signal. ptrace(2) causes syscallStop, SIGTRAP at a
// clone, and SIGSTOP at the start of a new thread.
func resume(thread int, signal syscall.Signal) error {
	switch signal {
	case syscallStop, unix.SIGTRAP, unix.SIGSTOP:
		signal = 0
	}
	err := unix.PtraceSyscall(thread, int(signal))
	if errors.Is(err, unix.ESRCH) {
		return nil // the thread was killed
	}
	return err
}

// nextCall returns the system call that a stopped thread is about to make. entering is false if the
// thread has just returned from a system call, or was killed.
func nextCall(thread int) (call Call, entering bool) {
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

// wait waits for a process that this thread traces, or for a thread of such a process.
func wait(pid int, status *unix.WaitStatus) (int, error) {
	for {
		tid, err := unix.Wait4(pid, status, unix.WALL|unix.WNOTHREAD, nil)
		if !errors.Is(err, unix.EINTR) {
			return tid, err
		}
	}
}
