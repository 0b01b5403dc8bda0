package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

// The kernel needs about 22 ms to delete a link. About 2 ms after RTM_DELLINK, no process can find
// the link any more. About 20 ms later, the kernel acknowledges the request, because it first waits
// until no processor can have a pointer to the link (rcu_barrier in netdev_run_todo, net/core/dev.c).
// For a bridge, it waits twice (br_multicast_dev_del in net/bridge/br_multicast.c).
//
// DEL need not wait for the acknowledgement. But a process cannot end while one of its threads waits for
// an acknowledgement. Therefore a child process sends the request and waits. The child ends after its
// parent, and process 1 reaps the child.

// The notification RTM_DELNETCONF, in linux/netconf.h.
const (
	netconfSize  = 4 // size of struct netconfmsg, which precedes the attributes
	netconfIndex = 1 // NETCONFA_IFINDEX
)

// removalWait is the longest time that RemoveLink waits for the deletion of a link.
const removalWait = 10 * time.Second

// removalGroups are the multicast groups of two notifications about a deletion. The kernel sends
// RTM_DELNETCONF first, when a link has lost its name and index (NETDEV_UNREGISTER in
// net/ipv4/devinet.c). It sends RTM_DELLINK later, for a bridge only after the first of its two waits.
// Kernels before Linux 4.12 have no RTM_DELNETCONF. RemoveLink then waits for RTM_DELLINK and takes
// longer.
const removalGroups = unix.RTMGRP_LINK | 1<<(unix.RTNLGRP_IPV4_NETCONF-1)

// RemoveLink deletes a link as DeleteLink does, but returns as soon as no process can find the link.
// If RemoveLink cannot start a child process, it deletes the link itself and waits for the
// acknowledgement.
func RemoveLink(n *netns.Namespace, l Link) error {
	r := removal{Link: l}
	err := r.listen(n)
	defer r.close()
	if err != nil {
		return err
	}
	request := DeletionRequest(l)
	request.Flags |= unix.NLM_F_ACK
	if err := r.begin(request.Serialize()); err != nil {
		return DeleteLink(n, l)
	}
	gone, err := r.wait(n)
	if err == nil && !gone {
		return DeleteLink(n, l) // the child was killed before the kernel answered
	}
	return err
}

// removal holds the sockets and pipe ends with which RemoveLink and its child process communicate.
type removal struct {
	Link
	notices *netns.Socket // the parent receives the notifications about links here
	request *netns.Socket // the child sends RTM_DELLINK here
	answer  *os.File      // the parent reads the kernel's answer to the child here: read end of a pipe
	child   *os.File      // the child writes the kernel's answer here: write end of the pipe
}

// listen opens the sockets and the pipe.
func (r *removal) listen(n *netns.Namespace) (err error) {
	if r.notices, err = n.NewSocket(unix.NETLINK_ROUTE); err == nil {
		err = unix.Bind(r.notices.FD, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: removalGroups})
	}
	if err == nil {
		r.request, err = n.NewSocket(unix.NETLINK_ROUTE)
	}
	if err == nil {
		r.answer, r.child, err = os.Pipe()
	}
	if err != nil {
		return fmt.Errorf("prepare to delete link %s: %w", r.Name, err)
	}
	return nil
}

func (r *removal) close() {
	for _, s := range []*netns.Socket{r.notices, r.request} {
		if s != nil {
			s.Close()
		}
	}
	if r.answer != nil {
		_ = r.answer.Close() // the pipe end is only read, so nothing can be lost
		_ = r.child.Close()  // nothing is buffered
	}
}

// begin starts the child, which sends the request. Signals are blocked during the fork, because the child
// must not run the Go runtime's signal handlers.
func (r *removal) begin(request []byte) error {
	runtime.LockOSThread() // each thread has a signal mask of its own
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	failed := forkToSend(r.request.FD, int(r.child.Fd()), request)
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil) // restoring the previous mask cannot fail
	if failed != 0 {
		return fmt.Errorf("fork: %w", failed)
	}
	return r.child.Close() // only the child has the write end open now, so a read returns EOF when the child ends
}

// forkToSend starts a child process that sends the request, writes the kernel's answer to the file
// descriptor "file", and ends. All signals must be blocked. The child has the memory of the Go runtime,
// but none of its threads. Therefore the child only makes system calls, and needs no more stack than this
// function has (like forkAndExecInChild in package syscall).
//
// The child closes standard input, output and error, because a program that reads the parent's output
// waits until all writers have closed it. The child keeps the sockets open, so the child is the last
// process that closes them. The last process that closes an nf_tables socket waits some milliseconds
// until deleted rules are freed (nft_rcv_nl_event in net/netfilter/nf_tables_api.c). The parent does not
// have to wait.
//
//go:nosplit
//go:norace
func forkToSend(socket, file int, request []byte) syscall.Errno {
	var answer [64]byte
	var first, second uintptr = uintptr(unix.SIGCHLD), 0
	if runtime.GOARCH == "s390x" { // clone(2), "C library/kernel differences": the order of arguments on s390x
		first, second = second, first
	}
	pid, _, failed := syscall.RawSyscall6(unix.SYS_CLONE, first, second, 0, 0, 0, 0)
	if pid != 0 || failed != 0 {
		return failed
	}
	for output := range uintptr(3) {
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, output, 0, 0)
	}
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(socket), uintptr(unsafe.Pointer(&request[0])), uintptr(len(request)))
	size, _, _ := syscall.RawSyscall(unix.SYS_READ, uintptr(socket), uintptr(unsafe.Pointer(&answer)), unsafe.Sizeof(answer))
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(file), uintptr(unsafe.Pointer(&answer)), size)
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// wait waits until the link is deleted or the kernel refuses the request. If the child ends before it
// writes the kernel's answer to the pipe, gone is false and err is nil.
func (r *removal) wait(n *netns.Namespace) (gone bool, err error) {
	deadline := time.Now().Add(removalWait)
	ready := []unix.PollFd{{Fd: int32(r.notices.FD), Events: unix.POLLIN}, {Fd: int32(r.answer.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(ready, max(0, int(time.Until(deadline).Milliseconds())))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, fmt.Errorf("wait for the deletion of link %s: %w", r.Name, err)
		case ready[0].Revents != 0:
			if gone, err := r.readNotices(n); gone || err != nil {
				return gone, err
			}
		case ready[1].Revents != 0:
			return r.readAnswer()
		case time.Now().After(deadline):
			return false, fmt.Errorf("wait for the deletion of link %s: %w", r.Name, os.ErrDeadlineExceeded)
		}
	}
}

// readNotices reads the notifications about links. The result gone is true if the link was deleted.
// readNotices ignores RTM_DELLINK of the family AF_BRIDGE, which the kernel sends when a port leaves a
// bridge.
func (r *removal) readNotices(n *netns.Namespace) (gone bool, err error) {
	err = r.notices.Receive(func(m netns.Message) bool {
		switch m.Kind {
		case unix.RTM_DELLINK:
			header := nl.DeserializeIfInfomsg(m.Data)
			gone = header.Family == unix.AF_UNSPEC && int(header.Index) == r.Index
		case unix.RTM_DELNETCONF:
			gone = netns.Attrs(m.Data[netconfSize:]).Integer(netconfIndex) == r.Index
		}
		return !gone
	})
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false, nil
	case errors.Is(err, unix.ENOBUFS): // the socket was full, so notifications were lost
		_, err = ByIndex(n, r.Index)
		if Absent(err) {
			return true, nil
		}
	}
	return gone, err
}

// readAnswer reads the kernel's answer, which the child writes to the pipe. If the child was
// killed, gone is false and err is nil.
func (r *removal) readAnswer() (gone bool, err error) {
	answer := make([]byte, 64)
	size, err := r.answer.Read(answer)
	if err != nil || size < unix.NLMSG_HDRLEN+4 {
		return false, nil //nolint:nilerr // the child was killed
	}
	errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])))
	if errno != 0 && errno != unix.ENODEV {
		return false, fmt.Errorf("delete link %s: %w", r.Name, errno)
	}
	return true, nil
}
