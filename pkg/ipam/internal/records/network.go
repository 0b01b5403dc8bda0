package records

import (
	"bytes"
	"fmt"
	"net/netip"

	bolt "go.etcd.io/bbolt"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
)

// Layout describes the buckets and the format of the store's file for package boltfile.
var Layout = boltfile.Layout{Format: 2, Root: networksBucket, Convert: checkFormat1}

// The store has the following buckets. Each line shows a bucket, its keys, and after the colon its
// values. An address is stored as 16 bytes, so that the addresses of a range are next to each
// other. RFC 4291, 2.5.5.2, defines the 16 bytes of an IPv4 address.
//
//	networks/NAME/addresses     address: its lease, or its position in the free queue
//	networks/NAME/attachments   container and interface: addresses, in the order of their sets
//	networks/NAME/pools         last address of a range: pool
//	networks/NAME/queue         last address of a range, position: free address
//
// Networks with sticky addresses have two more buckets:
//
//	networks/NAME/names   name and interface: addresses
//	networks/NAME/kept    end of the keeping time, address: nothing
var (
	networksBucket    = []byte("networks")
	addressesBucket   = []byte("addresses")
	attachmentsBucket = []byte("attachments")
	poolsBucket       = []byte("pools")
	queueBucket       = []byte("queue")
	namesBucket       = []byte("names")
	keptBucket        = []byte("kept")
)

// Lowest and Highest are the first and the last of all addresses, in the store's order of
// addresses.
var (
	Lowest  = netip.IPv6Unspecified()
	Highest = netip.AddrFrom16([16]byte(bytes.Repeat([]byte{0xff}, 16)))
)

// fillPercent is the share of each page that bbolt fills when it splits a page of the bucket
// "addresses". Addresses are first given out in ascending order, so bbolt seldom adds records to
// any page but the last.
const fillPercent = 0.9

// Network gives access to the records of one network, within a transaction.
type Network struct {
	Name string

	tx                                   *bolt.Tx
	root                                 *bolt.Bucket
	addresses, attachments, pools, queue *bolt.Bucket
	changedNames                         map[string][]byte
}

// Create makes the buckets of a network that is not in the store yet.
func Create(tx *bolt.Tx, name string) (*Network, error) {
	b, err := tx.Bucket(networksBucket).CreateBucket([]byte(name))
	for _, key := range [][]byte{addressesBucket, attachmentsBucket, poolsBucket, queueBucket} {
		if err == nil {
			_, err = b.CreateBucket(key)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create network %q: %w", name, err)
	}
	return Open(tx, name)
}

// Open returns a network, or nil if the network is not in the store.
func Open(tx *bolt.Tx, name string) (*Network, error) {
	b := tx.Bucket(networksBucket).Bucket([]byte(name))
	if b == nil {
		return nil, nil
	}
	n := &Network{
		Name: name, tx: tx, root: b,
		addresses: b.Bucket(addressesBucket), attachments: b.Bucket(attachmentsBucket), pools: b.Bucket(poolsBucket), queue: b.Bucket(queueBucket),
	}
	if n.addresses == nil || n.attachments == nil || n.pools == nil || n.queue == nil {
		return nil, fmt.Errorf("%w: network %q is incomplete", boltfile.ErrDamaged, name)
	}
	n.addresses.FillPercent = fillPercent
	return n, nil
}

// Names returns the names of all networks in the store.
func Names(tx *bolt.Tx) (names []string, err error) {
	err = tx.Bucket(networksBucket).ForEachBucket(func(name []byte) error {
		names = append(names, string(name))
		return nil
	})
	return names, err
}

// EachOther calls visit with each network of the store except n. It stops when visit returns an
// error.
func (n *Network) EachOther(visit func(*Network) error) error {
	return n.tx.Bucket(networksBucket).ForEachBucket(func(name []byte) error {
		if string(name) == n.Name {
			return nil
		}
		other, err := Open(n.tx, string(name))
		if err != nil {
			return err
		}
		return visit(other)
	})
}

// Pages returns the offset in the store's file at which bbolt's pages end, in bytes.
func (n *Network) Pages() int64 { return n.tx.Size() }

// checkFormat1 checks the records of a store that has the format number 1. Two kinds of releases
// wrote this number. The first releases wrote shorter records, which this release cannot read. For
// such records, checkFormat1 returns an error. Later releases wrote the same records as in format
// 2.
func checkFormat1(tx *bolt.Tx) error {
	return tx.Bucket(networksBucket).ForEachBucket(func(name []byte) error {
		n, err := Open(tx, string(name))
		if err != nil {
			return err
		}
		if err := n.EachLease(Lowest, Highest, func(Lease) bool { return true }); err != nil {
			return err
		}
		if err := n.EachPool(func(*Pool) {}); err != nil {
			return err
		}
		return n.CheckAttachments()
	})
}
