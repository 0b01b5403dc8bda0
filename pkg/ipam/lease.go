package ipam

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Attachment names one interface of one container on one network. No part of it
// holds a zero byte, which no environment variable can either.
type Attachment struct{ Network, Container, Interface string }

// key is the attachment within its network.
func (a Attachment) key() []byte { return []byte(a.Container + "\x00" + a.Interface) }

// Namespace is a container's network namespace. Device and Inode are those of the
// file at Path (stat(2)), 0 where it could not be seen.
type Namespace struct {
	Path          string
	Device, Inode uint64
}

// NamespaceAt looks at the namespace at path now.
func NamespaceAt(path string) Namespace {
	n := Namespace{Path: path}
	if info, err := os.Stat(path); err == nil {
		st := info.Sys().(*syscall.Stat_t)
		n.Device, n.Inode = st.Dev, st.Ino
	}
	return n
}

// Gone says whether the namespace is no longer at its path, or another one is. One
// that could not be seen in the first place is not gone.
func (n Namespace) Gone() bool { return n.Inode != 0 && NamespaceAt(n.Path) != n }

// Lease says who has an address, since when.
type Lease struct {
	Attachment
	Address   netip.Prefix // with the length of its subnet
	Gateway   netip.Addr   // none when zero
	Namespace Namespace    // the zero one where it is not known
	Time      time.Time
	Sticky    Sticky
	Until     time.Time // it is kept so long for Sticky's name, its attachment being gone; else zero
}

// Sticky asks that an address stays with a name, such as that of a pod, for whoever
// comes under it next. The zero Sticky asks for nothing.
type Sticky struct {
	Name string
	For  time.Duration // how long after the attachment is gone
}

// leaseFields is how many parts a lease has in the store.
const leaseFields = 11

// describe says who has the lease, since when.
func (l Lease) describe() string {
	if !l.Until.IsZero() {
		return fmt.Sprintf("it is kept for %s until %s", l.Sticky.Name, l.Until.Format(time.RFC3339))
	}
	return fmt.Sprintf("container %s, interface %s, has it since %s", l.Container, l.Interface, l.Time.Format(time.RFC3339))
}

// encode is the lease as the store has it under its address: text, one part after
// another, a zero byte between them. A million leases are to be listed in a second,
// and the file is to be legible to strings(1).
func (l Lease) encode() []byte {
	gateway := ""
	if l.Gateway.IsValid() {
		gateway = l.Gateway.String()
	}
	return []byte(strings.Join([]string{
		l.Container, l.Interface, strconv.Itoa(l.Address.Bits()), gateway,
		l.Namespace.Path, strconv.FormatUint(l.Namespace.Device, 10), strconv.FormatUint(l.Namespace.Inode, 10),
		formatTime(l.Time), l.Sticky.Name, strconv.FormatInt(int64(l.Sticky.For), 10), formatTime(l.Until),
	}, "\x00"))
}

// formatTime is a time in nanoseconds since 1970, empty for the zero time.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixNano(), 10)
}

// decodeLease reads what encode wrote.
func decodeLease(network string, address netip.Addr, record []byte) (l Lease, err error) {
	f := fields{parts: strings.Split(string(record), "\x00")}
	if len(f.parts) != leaseFields {
		return l, fmt.Errorf("%w: the lease of %s has %d parts", ErrDamaged, address, len(f.parts))
	}
	l.Network, l.Container, l.Interface = network, f.text(), f.text()
	l.Address = netip.PrefixFrom(address, int(f.number(8)))
	l.Gateway = f.address()
	l.Namespace = Namespace{f.text(), f.number(64), f.number(64)}
	l.Time = f.time()
	l.Sticky = Sticky{f.text(), time.Duration(f.number(63))}
	l.Until = f.time()
	if f.err != nil || !l.Address.IsValid() {
		return l, fmt.Errorf("%w: the lease of %s makes no sense", ErrDamaged, address)
	}
	return l, nil
}

// fields reads the parts of a record, one by one; err is the first mistake.
type fields struct {
	parts []string
	err   error
}

func (f *fields) text() (part string) {
	part, f.parts = f.parts[0], f.parts[1:]
	return part
}

func (f *fields) number(bits int) uint64 {
	n, err := strconv.ParseUint(f.text(), 10, bits)
	f.note(err)
	return n
}

// address reads an address, none when empty.
func (f *fields) address() (a netip.Addr) {
	if part := f.text(); part != "" {
		var err error
		a, err = netip.ParseAddr(part)
		f.note(err)
	}
	return a
}

// time reads a time, the zero one when empty.
func (f *fields) time() time.Time {
	part := f.text()
	if part == "" {
		return time.Time{}
	}
	n, err := strconv.ParseInt(part, 10, 64)
	f.note(err)
	return time.Unix(0, n)
}

func (f *fields) note(err error) {
	if f.err == nil {
		f.err = err
	}
}
