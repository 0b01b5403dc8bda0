package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NamedDir is the folder in which ip-netns(8) keeps named namespaces, as bind mounts.
const NamedDir = "/run/netns"

var (
	// ErrNoNamespace is returned if the file of a namespace does not exist.
	ErrNoNamespace = errors.New("the network namespace does not exist")
	// ErrNotNamespace is returned if the file is not a network namespace. Usually it is the empty
	// file that remains after a bind mount was unmounted.
	ErrNotNamespace = errors.New("it is not a network namespace")
)

// Namespace is an open network namespace with its netlink sockets. Each socket is opened at its first
// use. Only one goroutine at a time may use a Namespace.
type Namespace struct {
	Path string // the argument of Open; "" for the namespace of the calling thread
	// Device and Inode identify the namespace while it exists. They are the same for all its paths
	// (ioctl_ns(2)).
	Device, Inode uint64

	thread  int // ID of the thread that is in the namespace, unless the thread runs inOther; 0 if unknown
	Handle  netns.NsHandle
	sockets map[int]*Socket // by protocol
	library *netlink.Handle // see Library; nil before its first call
}

// Current returns the namespace of the calling thread.
func Current() (*Namespace, error) {
	h, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open the current network namespace: %w", err)
	}
	n, err := newNamespace("", h)
	if err == nil && threadsInOther.Load() == 0 {
		n.thread = unix.Gettid()
	}
	return n, err
}

// Open opens the namespace at a path such as /run/netns/NAME or /proc/PID/ns/net. The error wraps
// ErrNoNamespace if the file does not exist, and ErrNotNamespace if the file is no network
// namespace.
func Open(path string) (*Namespace, error) {
	h, err := netns.GetFromPath(path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("open %s: %w", path, ErrNoNamespace)
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	kind, err := unix.IoctlRetInt(int(h), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		_ = h.Close() // read only
		return nil, fmt.Errorf("open %s: %w", path, ErrNotNamespace)
	}
	return newNamespace(path, h)
}

// newNamespace returns a Namespace that owns h. If it fails, it closes h.
func newNamespace(path string, h netns.NsHandle) (*Namespace, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(h), &st); err != nil {
		_ = h.Close() // read only
		return nil, fmt.Errorf("stat network namespace %s: %w", path, err)
	}
	return &Namespace{Path: path, Device: st.Dev, Inode: st.Ino, Handle: h, sockets: map[int]*Socket{}}, nil
}

// Library returns a handle of the library github.com/vishvananda/netlink in the namespace. The first
// call opens the handle.
func (n *Namespace) Library() (*netlink.Handle, error) {
	if n.library == nil {
		// Do enters the namespace only if the thread is not in it. netlink.NewHandleAt would always
		// enter it, which needs CAP_SYS_ADMIN.
		err := n.Do(func() (err error) {
			n.library, err = netlink.NewHandle(unix.NETLINK_ROUTE)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("open netlink socket in network namespace %s: %w", n.Path, err)
		}
	}
	return n.library, nil
}

// Close closes the file and the sockets. The namespace itself continues to exist.
func (n *Namespace) Close() {
	if n.library != nil {
		n.library.Close()
	}
	for _, s := range n.sockets {
		s.Close()
	}
	_ = n.Handle.Close() // read only
}

// Same reports whether n and m are the same namespace.
func (n *Namespace) Same(m *Namespace) bool {
	return n.Device == m.Device && n.Inode == m.Inode
}

// Do moves the calling thread into the namespace, runs f, and moves the thread back. This needs
// CAP_SYS_ADMIN. If the thread is in the namespace already, Do only runs f.
func (n *Namespace) Do(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if n.isCurrent() {
		return f()
	}
	return inOther(func() error {
		if err := netns.Set(n.Handle); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.Path, err)
		}
		return f()
	})
}

// isCurrent reports whether the calling thread is in the namespace. It may wrongly return false. Do
// then enters the namespace a second time, which does no harm.
func (n *Namespace) isCurrent() bool {
	if n.Path != "" {
		return false
	}
	if n.thread == unix.Gettid() && threadsInOther.Load() == 0 {
		return true // the stat below takes 15 µs, and an ADD would call it ten times
	}
	var current unix.Stat_t
	err := unix.Stat("/proc/thread-self/ns/net", &current)
	return err == nil && current.Dev == n.Device && current.Ino == n.Inode
}

// threadsInOther is the number of threads that may be outside their own namespace. They are the
// threads that run the function inOther, and the threads that inOther could not move back.
var threadsInOther atomic.Int32

// inOther runs f, which may move the calling thread to another namespace, and then moves the thread
// back to its own namespace. If this fails, the thread stays locked to its goroutine, so the Go
// runtime ends the thread together with the goroutine.
func inOther(f func() error) (err error) {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open the current network namespace: %w", err)
	}
	defer before.Close()
	threadsInOther.Add(1)
	defer func() {
		if back := netns.Set(before); back != nil {
			err = errors.Join(err, fmt.Errorf("return to the previous network namespace: %w", back))
			return
		}
		threadsInOther.Add(-1)
		runtime.UnlockOSThread()
	}()
	return f()
}

// CreateNamed creates a namespace with this name, as ip-netns(8) does.
func CreateNamed(name string) error {
	return inOther(func() error { // netns.NewNamed leaves the thread in the new namespace
		made, err := netns.NewNamed(name)
		if err == nil {
			err = made.Close() // the namespace continues to exist, because it is mounted at its name
		}
		if err != nil {
			return fmt.Errorf("create network namespace %s: %w", name, err)
		}
		return nil
	})
}

// DeleteNamed removes the name of a namespace that CreateNamed or ip-netns(8) created. The kernel
// deletes the namespace itself when no name, process or socket refers to it.
func DeleteNamed(name string) error {
	path := filepath.Join(NamedDir, name)
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // EINVAL means that nothing is mounted on the file
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete network namespace %s: %w", name, err)
	}
	return nil
}
