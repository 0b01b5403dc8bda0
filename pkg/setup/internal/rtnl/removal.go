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

// A link is gone, and everybody has been told so, two milliseconds after RTM_DELLINK, but the
// kernel answers only when no processor can have a pointer to it any more, some twenty
// milliseconds later (rcu_barrier in netdev_run_todo, net/core/dev.c). Nobody needs to wait
// for that. But a process ends when the last of its threads does, so it takes a child to
// ask, which outlives its parent and is left to whoever adopts it, mostly process 1.

// removalWait is how long the kernel may take to say that a link is gone.
const removalWait = 10 * time.Second

// RemoveLink deletes a link as deleteLink does, but returns as soon as it is gone, while the
// kernel still tidies up. Where no child can be had it waits for that, too.
func RemoveLink(n *netns.Namespace, l Link) error {
	r := removal{Link: l}
	err := r.listen(n)
	defer r.close()
	if err != nil {
		return err
	}
	request := deletionRequest(l)
	request.Flags |= unix.NLM_F_ACK
	if err := r.begin(request.Serialize()); err != nil {
		return DeleteLink(n, l)
	}
	gone, err := r.wait(n)
	if err == nil && !gone {
		return DeleteLink(n, l) // something has ended the child
	}
	return err
}

// removal is the end of a link, as long as it takes.
type removal struct {
	Link
	told   *netns.Socket // that links are gone
	asking *netns.Socket // the child's
	answer *os.File      // what the kernel has said to the child
	child  *os.File      // the other end of that
}

// listen opens what the removal needs.
func (r *removal) listen(n *netns.Namespace) (err error) {
	if r.told, err = n.NewSocket(unix.NETLINK_ROUTE); err == nil {
		err = unix.Bind(r.told.FD, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK})
	}
	if err == nil {
		r.asking, err = n.NewSocket(unix.NETLINK_ROUTE)
	}
	if err == nil {
		r.answer, r.child, err = os.Pipe()
	}
	if err != nil {
		return fmt.Errorf("prepare the end of link %s: %w", r.Name, err)
	}
	return nil
}

func (r *removal) close() {
	for _, s := range []*netns.Socket{r.told, r.asking} {
		if s != nil {
			s.Close()
		}
	}
	if r.answer != nil {
		_ = r.answer.Close() // read only
		_ = r.child.Close()  // nothing is buffered
	}
}

// begin has a child ask the kernel.
func (r *removal) begin(request []byte) error {
	runtime.LockOSThread() // the mask is a thread's
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	failed := forkToAsk(r.asking.FD, int(r.child.Fd()), request)
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil) // as it was just now
	if failed != 0 {
		return fmt.Errorf("fork: %w", failed)
	}
	return r.child.Close() // so that the child's end is the end of what can be read
}

// forkToAsk makes a child that sends the request, writes the kernel's answer to a file, and
// ends. All signals are blocked. The child has of the Go runtime the memory, and none of its
// threads: what it does has to be system calls and nothing else, in a frame that needs no
// more stack (as in forkAndExecInChild of package syscall).
//
// Whoever reads the parent's output waits until nobody can write there, so the child closes
// that. The sockets it keeps: the last one to close one of nf_tables waits until what was
// deleted by it is freed, for some milliseconds (nft_rcv_nl_event in
// net/netfilter/nf_tables_api.c).
//
//go:nosplit
//go:norace
func forkToAsk(socket, file int, request []byte) syscall.Errno {
	var answer [64]byte
	var first, second uintptr = uintptr(unix.SIGCHLD), 0
	if runtime.GOARCH == "s390x" { // clone(2), "C library/kernel differences"
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

// wait returns when the link is gone, or the kernel has refused. gone is false when the
// child has ended without either.
func (r *removal) wait(n *netns.Namespace) (gone bool, err error) {
	deadline := time.Now().Add(removalWait)
	ready := []unix.PollFd{{Fd: int32(r.told.FD), Events: unix.POLLIN}, {Fd: int32(r.answer.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(ready, max(0, int(time.Until(deadline).Milliseconds())))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, fmt.Errorf("wait for the end of link %s: %w", r.Name, err)
		case ready[0].Revents != 0:
			if gone, err := r.heard(n); gone || err != nil {
				return gone, err
			}
		case ready[1].Revents != 0:
			return r.answered()
		case time.Now().After(deadline):
			return false, fmt.Errorf("wait for the end of link %s: %w", r.Name, os.ErrDeadlineExceeded)
		}
	}
}

// heard reads what the kernel tells of links, and says whether it is that ours is gone. A
// bridge tells of its ports that leave in the same words, but for the family.
func (r *removal) heard(n *netns.Namespace) (gone bool, err error) {
	err = r.told.Receive(func(m netns.Message) bool {
		header := nl.DeserializeIfInfomsg(m.Data)
		gone = m.Kind == unix.RTM_DELLINK && header.Family == unix.AF_UNSPEC && int(header.Index) == r.Index
		return !gone
	})
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false, nil
	case errors.Is(err, unix.ENOBUFS): // more was told than there was room for
		_, err = ByIndex(n, r.Index)
		if Absent(err) {
			return true, nil
		}
	}
	return gone, err
}

// answered reads what the kernel has said to the child.
func (r *removal) answered() (gone bool, err error) {
	said := make([]byte, 64)
	size, err := r.answer.Read(said)
	if err != nil || size < unix.NLMSG_HDRLEN+4 {
		return false, nil //nolint:nilerr // it was ended
	}
	errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(said[unix.NLMSG_HDRLEN:])))
	if errno != 0 && errno != unix.ENODEV {
		return false, fmt.Errorf("delete link %s: %w", r.Name, errno)
	}
	return true, nil
}
