package boltfile

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// leastExtra is the disk space beyond its pages that the smallest file has, in bytes. A
	// change copies each page from the root to the changed record, and splits some: about
	// fifteen pages.
	leastExtra = 128 << 10
	// mostExtra is the disk space beyond its pages that the largest file has, in bytes.
	mostExtra = 8 << 20
	// blockSize is the unit of st_blocks, in bytes: stat(2).
	blockSize = 512
)

// Preallocate gives the file disk space beyond its pages, so that leases can be freed when the
// disk is full. bbolt needs such space because it writes a changed page to a new place:
//
//   - A change for one lease uses the pages that the change before it has given up, and hardly
//     more than one page besides.
//   - A change that frees all leases writes all pages anew, so the file needs its own size again.
//
// used is where bbolt's pages end, in bytes. On a file system without fallocate(2) Preallocate
// does nothing.
func (f *File) Preallocate(used int64) error {
	want := used + min(used, mostExtra) + leastExtra
	var st unix.Stat_t
	if err := unix.Fstat(int(f.f.Fd()), &st); err != nil {
		return err
	}
	if st.Blocks*blockSize >= want {
		return nil
	}
	// It takes a quarter more than needed, so that most ADDs find enough.
	err := unix.Fallocate(int(f.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, want+want/4)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("preallocate disk space for DEL: %w", err)
	}
	return nil
}
