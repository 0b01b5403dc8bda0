package ipam

import (
	"errors"
	"fmt"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

// layout says how a kind of file keeps what it holds.
type layout struct {
	// format is raised with every change of the buckets, keys or records of a file:
	// TestLayout compares them with those that a format had.
	format uint64
	// convert turns the contents of a file of the format before into those of this one. None
	// where there is no such format.
	convert func(*bolt.Tx) error
}

var (
	storeLayout  = layout{2, checkFormat1}
	memoryLayout = layout{format: 1}
)

// formatKey is where a file's format stands.
var formatBucket, formatKey = []byte("store"), []byte("format")

// errOlder says that an earlier release wrote the file, in a format that can be upgraded.
var errOlder = errors.New("an earlier release wrote the file")

// write makes a new file one of ours.
func (l layout) write(tx *bolt.Tx) error {
	_, err := tx.CreateBucket(formatBucket)
	if err == nil {
		err = l.sign(tx)
	}
	if err == nil {
		_, err = tx.CreateBucket(networksBucket)
	}
	return err
}

// sign notes the format in the file.
func (l layout) sign(tx *bolt.Tx) error {
	return tx.Bucket(formatBucket).Put(formatKey, strconv.AppendUint(nil, l.format, 10))
}

// check compares the file's format with ours.
func (l layout) check(tx *bolt.Tx) error {
	b := tx.Bucket(formatBucket)
	if b == nil || tx.Bucket(networksBucket) == nil {
		return ErrDamaged
	}
	found, err := strconv.ParseUint(string(b.Get(formatKey)), 10, 64)
	switch {
	case err != nil:
		return fmt.Errorf("%w (its format is %q, ours %d)", ErrDamaged, b.Get(formatKey), l.format)
	case found > l.format:
		return fmt.Errorf("%w (its format is %d, ours %d)", ErrNewer, found, l.format)
	case found == l.format:
		return nil
	case found == l.format-1 && l.convert != nil:
		return errOlder
	}
	return fmt.Errorf("%w (its format %d is older than any that can be read, ours is %d)", ErrDamaged, found, l.format)
}

// upgrade makes a file of the format before one of ours.
func (l layout) upgrade(tx *bolt.Tx) error {
	if err := l.convert(tx); err != nil {
		return fmt.Errorf("upgrade from format %d: %w", l.format-1, err)
	}
	return l.sign(tx)
}

// checkFormat1 accepts a store of format 1 whose records are as those of format 2. Releases
// wrote two layouts as format 1; the second of them is format 2.
func checkFormat1(tx *bolt.Tx) error {
	return tx.Bucket(networksBucket).ForEachBucket(func(name []byte) error {
		n, err := openNetwork(tx, string(name))
		if err != nil {
			return err
		}
		if err := n.within(lowest, highest, func(Lease) bool { return true }); err != nil {
			return err
		}
		if err := n.pools.ForEach(func(key, record []byte) error { _, err := decodePool(key, record); return err }); err != nil {
			return err
		}
		return n.checkHeld()
	})
}
