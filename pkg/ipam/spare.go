package ipam

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// leastSpare is what the smallest store has beyond its pages, in bytes. A change copies each
	// page on the way to what it changes, and splits some: about fifteen pages in all.
	leastSpare = 128 << 10
	// mostSpare bounds what the largest store has, in bytes.
	mostSpare = 8 << 20
	// blockSize is the unit of st_blocks, in bytes: stat(2).
	blockSize = 512
)

// spare gives the file space on its disk beyond its pages, so that leases can be freed when
// the disk is full: bbolt writes each page that a change touches to another place. The pages
// that a change gives up are for the next, so a change for each lease takes hardly more than
// one. One that frees all leases writes all pages anew: hence as much again as there is.
//
// used is where bbolt's pages end, in bytes. A file system that cannot set space aside is
// left without.
func (f *file) spare(used int64) error {
	want := used + min(used, mostSpare) + leastSpare
	var st unix.Stat_t
	if err := unix.Fstat(int(f.f.Fd()), &st); err != nil {
		return err
	}
	if st.Blocks*blockSize >= want {
		return nil
	}
	// Each ADD that finds too little takes more than it needs, so that few do.
	err := unix.Fallocate(int(f.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, want+want/4)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("keep space for the end of leases: %w", err)
	}
	return nil
}
