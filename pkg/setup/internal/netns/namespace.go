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

// NamedDir is where ip-netns(8) keeps named namespaces, as bind mounts.
const NamedDir = "/run/netns"

var (
	// ErrNoNamespace says that nothing is at a namespace's path any more.
	ErrNoNamespace = errors.New("no network namespace is there")
	// ErrNotNamespace says that something else is there: the empty file that a
	// lost bind mount leaves, as a rule.
	ErrNotNamespace = errors.New("that is no network namespace")
)

// Namespace is a network namespace, with netlink sockets in it as they are needed. One
// goroutine at a time uses it.
type Namespace struct {
	Path string // as given to OpenNamespace; "" for the calling thread's
	// Device and Inode identify the namespace for as long as it lives, whatever
	// path leads to it (ioctl_ns(2)).
	Device, Inode uint64

	thread  int // that is in it but for the time of a comeBack, 0 where none is known to be
	Handle  netns.NsHandle
	sockets map[int]*Socket // by protocol
	routes  *netlink.Handle // for what the library has a function for
}

// Current returns the calling thread's namespace.
func Current() (*Namespace, error) {
	h, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open the current network namespace: %w", err)
	}
	n, err := newNamespace("", h)
	if err == nil && away.Load() == 0 {
		n.thread = unix.Gettid()
	}
	return n, err
}

// Open returns the namespace at path (/run/netns/NAME,
// /proc/PID/ns/net). Its errors wrap ErrNoNamespace or ErrNotNamespace.
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

// newNamespace takes over h, which it closes when it fails.
func newNamespace(path string, h netns.NsHandle) (*Namespace, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(h), &st); err != nil {
		_ = h.Close() // read only
		return nil, fmt.Errorf("stat network namespace %s: %w", path, err)
	}
	return &Namespace{Path: path, Device: st.Dev, Inode: st.Ino, Handle: h, sockets: map[int]*Socket{}}, nil
}

// Library returns the library's own connection, opened at its first use.
func (n *Namespace) Library() (*netlink.Handle, error) {
	if n.routes == nil {
		h, err := netlink.NewHandleAt(n.Handle, unix.NETLINK_ROUTE)
		if err != nil {
			return nil, fmt.Errorf("open netlink socket in network namespace %s: %w", n.Path, err)
		}
		n.routes = h
	}
	return n.routes, nil
}

// Close gives back the file and the sockets. The namespace itself stays.
func (n *Namespace) Close() {
	if n.routes != nil {
		n.routes.Close()
	}
	for _, s := range n.sockets {
		s.Close()
	}
	_ = n.Handle.Close() // read only
}

// Same says whether two Namespaces are one.
func (n *Namespace) Same(m *Namespace) bool {
	return n.Device == m.Device && n.Inode == m.Inode
}

// Do runs f with the calling thread in the namespace.
func (n *Namespace) Do(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if n.here() {
		return f()
	}
	return comeBack(func() error {
		if err := netns.Set(n.Handle); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.Path, err)
		}
		return f()
	})
}

// here says whether the calling thread is in the namespace. It may be wrong that it is not.
func (n *Namespace) here() bool {
	if n.Path != "" {
		return false
	}
	if n.thread == unix.Gettid() && away.Load() == 0 {
		return true // without a look, which takes 15 µs, and an ADD would have ten
	}
	var here unix.Stat_t
	err := unix.Stat("/proc/thread-self/ns/net", &here)
	return err == nil && here.Dev == n.Device && here.Ino == n.Inode
}

// away counts the threads that may be in another namespace than their own, in comeBack or
// because there was no way back.
var away atomic.Int32

// comeBack runs f, which may leave the calling thread in another namespace than
// the one before, and returns there. Should the way back fail, the thread is lost:
// it stays locked to its goroutine and dies with it.
func comeBack(f func() error) (err error) {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open the current network namespace: %w", err)
	}
	defer before.Close()
	away.Add(1)
	defer func() {
		if back := netns.Set(before); back != nil {
			err = errors.Join(err, fmt.Errorf("return to the network namespace before: %w", back))
			return
		}
		away.Add(-1)
		runtime.UnlockOSThread()
	}()
	return f()
}

// CreateNamed makes a named namespace, which ends with the calling thread inside.
func CreateNamed(name string) error {
	return comeBack(func() error {
		made, err := netns.NewNamed(name)
		if err == nil {
			err = made.Close() // the bind mount keeps it
		}
		if err != nil {
			return fmt.Errorf("make network namespace %s: %w", name, err)
		}
		return nil
	})
}

// DeleteNamed removes the name of a namespace made by EnsureNamed or ip-netns(8).
// The namespace goes with its last name, process and socket.
func DeleteNamed(name string) error {
	path := filepath.Join(NamedDir, name)
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // EINVAL: nothing is mounted there
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete network namespace %s: %w", name, err)
	}
	return nil
}
