package records

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/leases"
)

// Lease is a lease of an address. See package leases.
type Lease = leases.Lease

// leaseFields is the number of fields in the record of a lease.
const leaseFields = 11

// Lease returns the lease of an address, if the address has one.
func (n *Network) Lease(a netip.Addr) (l Lease, leased bool, err error) {
	record := n.addresses.Get(addressKey(a))
	if record == nil || isPosition(record) {
		return l, false, nil
	}
	l, err = decodeLease(n.Name, a, record)
	return l, true, err
}

// PutLease writes a lease. The caller must first count the address as leased (see Occupy).
func (n *Network) PutLease(l Lease) error {
	return n.addresses.Put(addressKey(l.Address.Addr()), encodeLease(l))
}

// EachLease calls visit with the leases of all addresses from first to last, in ascending order.
// It stops when visit returns false.
func (n *Network) EachLease(first, last netip.Addr, visit func(Lease) bool) error {
	c, end := n.addresses.Cursor(), addressKey(last)
	for k, record := c.Seek(addressKey(first)); k != nil && bytes.Compare(k, end) <= 0; k, record = c.Next() {
		if isPosition(record) {
			continue
		}
		a, err := keyAddress(k)
		if err != nil {
			return err
		}
		l, err := decodeLease(n.Name, a, record)
		if err != nil {
			return err
		}
		if !visit(l) {
			return nil
		}
	}
	return nil
}

// encodeLease returns the record of a lease: text fields with a zero byte between them. The
// record's key is the lease's address. strings(1) can show such records, and a million of them can
// be decoded in a second.
func encodeLease(l Lease) []byte {
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

// formatTime returns a time as nanoseconds since 1970. It returns "" for the zero time.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixNano(), 10)
}

// decodeLease is the inverse of encodeLease.
func decodeLease(network string, address netip.Addr, record []byte) (l Lease, err error) {
	f := fields{rest: strings.Split(string(record), "\x00")}
	if len(f.rest) != leaseFields {
		return l, fmt.Errorf("%w: the lease of %s has %d fields", boltfile.ErrDamaged, address, len(f.rest))
	}
	l.Network, l.Container, l.Interface = network, f.text(), f.text()
	l.Address = netip.PrefixFrom(address, int(f.number(8)))
	l.Gateway = f.address()
	l.Namespace = leases.Namespace{Path: f.text(), Device: f.number(64), Inode: f.number(64)}
	l.Time = f.time()
	l.Sticky = leases.Sticky{Name: f.text(), For: time.Duration(f.number(63))}
	l.Until = f.time()
	if f.err != nil || !l.Address.IsValid() {
		return l, fmt.Errorf("%w: the lease of %s cannot be decoded", boltfile.ErrDamaged, address)
	}
	return l, nil
}

// fields reads a record field by field, and keeps the first error.
type fields struct {
	rest []string
	err  error
}

func (f *fields) text() (field string) {
	field, f.rest = f.rest[0], f.rest[1:]
	return field
}

func (f *fields) number(bits int) uint64 {
	n, err := strconv.ParseUint(f.text(), 10, bits)
	f.note(err)
	return n
}

// address reads an address. For an empty field, it returns the zero address.
func (f *fields) address() (a netip.Addr) {
	if field := f.text(); field != "" {
		var err error
		a, err = netip.ParseAddr(field)
		f.note(err)
	}
	return a
}

// time reads a time. For an empty field, it returns the zero time.
func (f *fields) time() time.Time {
	field := f.text()
	if field == "" {
		return time.Time{}
	}
	n, err := strconv.ParseInt(field, 10, 64)
	f.note(err)
	return time.Unix(0, n)
}

func (f *fields) note(err error) {
	if f.err == nil {
		f.err = err
	}
}
