package stickyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/files"
	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
)

const (
	// Name is the name of the sticky file in its folder.
	Name = "sticky.db"

	remedy = "delete it: each name then gets another address once"

	// lockWait is the longest time to wait for the lock on the folder. Several stores can use the
	// same folder, and each of them may be waiting for the disk. This can take seconds.
	lockWait = 5 * time.Second
)

// ErrSticky marks an error about the sticky file, as opposed to an error about the store.
var ErrSticky = errors.New("sticky addresses")

// The sticky file has one bucket for each network: networks/NAME. The bucket contains the names
// (such as those of pods) on the network, and their addresses.
var networksBucket = []byte("networks")

// Layout describes the bucket and the format of the sticky file for package boltfile.
var Layout = boltfile.Layout{Format: 1, Root: networksBucket}

// File is an open sticky file.
type File struct {
	boltfile.File
	lock *flock.Lock
}

// Open locks the folder dir and opens the sticky file in it. It creates the folder and the file if
// they are missing. storeDir is the folder of the store, which the caller has locked already. If
// dir and storeDir are the same folder, Open takes no lock. All errors wrap ErrSticky.
func Open(dir, storeDir string) (*File, error) {
	f := &File{File: boltfile.File{Path: filepath.Join(dir, Name), Layout: Layout, Remedy: remedy, Sync: true}}
	err := files.MakeFolder(dir)
	if err == nil {
		f.lock, err = lock(dir, storeDir)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSticky, err)
	}
	err = f.Load()
	if errors.Is(err, fs.ErrNotExist) {
		if err = f.Create(); err == nil {
			err = f.Load()
		}
	}
	if err != nil {
		f.lock.Unlock()
		return nil, f.wrapped(err)
	}
	return f, nil
}

// lock locks the folder dir, unless it is the folder of the store.
func lock(dir, storeDir string) (*flock.Lock, error) {
	store, err := os.Stat(storeDir)
	if err != nil {
		return nil, err
	}
	if asked, err := os.Stat(dir); err != nil || os.SameFile(store, asked) {
		return nil, err
	}
	return flock.Acquire(dir, flock.Exclusive, lockWait)
}

// Close closes the sticky file and unlocks its folder.
func (f *File) Close() error {
	defer f.lock.Unlock()
	return f.wrapped(f.File.Close())
}

// wrapped adds ErrSticky and the file's path to an error.
func (f *File) wrapped(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrSticky, f.Named(err))
}

// Names returns the names on a network, each with the record of its sticky addresses. It calls
// check with each record. If check returns an error, Names returns this error.
func (f *File) Names(network string, check func(record []byte) error) (map[string][]byte, error) {
	all := map[string][]byte{}
	err := f.View(func(tx *boltfile.Tx) error {
		b := tx.Bucket(networksBucket).Bucket([]byte(network))
		if b == nil {
			return nil
		}
		return b.ForEach(func(name, record []byte) error {
			all[string(name)] = bytes.Clone(record)
			return check(record)
		})
	})
	return all, f.wrapped(err)
}

// Save writes the names on a network whose sticky addresses have changed. It removes a name whose
// record is empty.
func (f *File) Save(network string, changed map[string][]byte) error {
	return f.wrapped(f.Update(func(tx *boltfile.Tx) error {
		b, err := tx.Bucket(networksBucket).CreateBucketIfNotExists([]byte(network))
		for key, record := range changed {
			switch {
			case err != nil:
				return err
			case len(record) == 0:
				err = b.Delete([]byte(key))
			default:
				err = b.Put([]byte(key), record)
			}
		}
		return err
	}))
}
