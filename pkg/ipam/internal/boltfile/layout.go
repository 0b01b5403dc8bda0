package boltfile

import (
	"errors"
	"fmt"
	"strconv"
)

// Layout describes the records and the format of one kind of file.
type Layout struct {
	// Format is the number of the file format. Increase it with every change of the buckets, keys
	// or records.
	Format uint64
	// Root is the name of the bucket that holds all records.
	Root []byte
	// Convert converts the records of the preceding format (Format-1) to those of Format. It is nil
	// if no release has written the preceding format.
	Convert func(*Tx) error
}

// formatBucket is the bucket that contains the format number, and formatKey is the number's key.
var formatBucket, formatKey = []byte("store"), []byte("format")

// errOlder means that an earlier release has written the file in the preceding format, which can be
// converted.
var errOlder = errors.New("an earlier release wrote the file")

// write makes the buckets and the format number of a new file.
func (l Layout) write(tx *Tx) error {
	_, err := tx.CreateBucket(formatBucket)
	if err == nil {
		err = l.WriteFormat(tx)
	}
	if err == nil {
		_, err = tx.CreateBucket(l.Root)
	}
	return err
}

// WriteFormat writes the format number into the file.
func (l Layout) WriteFormat(tx *Tx) error {
	return tx.Bucket(formatBucket).Put(formatKey, strconv.AppendUint(nil, l.Format, 10))
}

// check returns an error if the format number in the file is not Format.
func (l Layout) check(tx *Tx) error {
	b := tx.Bucket(formatBucket)
	if b == nil || tx.Bucket(l.Root) == nil {
		return ErrDamaged
	}
	found, err := strconv.ParseUint(string(b.Get(formatKey)), 10, 64)
	switch {
	case err != nil:
		return fmt.Errorf("%w (its format is %q, ours %d)", ErrDamaged, b.Get(formatKey), l.Format)
	case found > l.Format:
		return fmt.Errorf("%w (its format is %d, ours %d)", ErrNewer, found, l.Format)
	case found == l.Format:
		return nil
	case found == l.Format-1 && l.Convert != nil:
		return errOlder
	}
	return fmt.Errorf("%w (its format %d is too old to be read, ours is %d)", ErrDamaged, found, l.Format)
}

// upgrade converts a file of the preceding format.
func (l Layout) upgrade(tx *Tx) error {
	if err := l.Convert(tx); err != nil {
		return fmt.Errorf("upgrade from format %d: %w", l.Format-1, err)
	}
	return l.WriteFormat(tx)
}
