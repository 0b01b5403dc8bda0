package boltfile

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// leastExtra is the smallest disk space that a file reserves beyond its pages, in bytes. A
	// change copies each page from the root to the changed record, and splits some pages. This
	// takes about fifteen pages of 4 kB.
	leastExtra = 128 << 10
	// mostExtra is the largest disk space that a file reserves beyond its pages, in bytes.
	mostExtra = 8 << 20
	// blockSize is the unit of the field st_blocks of stat(2), in bytes.
	blockSize = 512
)

// Preallocate reserves disk space beyond the file's pages, so that leases can be freed when the
// disk is full. bbolt needs this space, because it writes each changed page to a new place:
//
//   - A change for one lease uses the pages that the previous change has freed, and about one
//     page more.
//   - A change that frees all leases writes all pages anew. It needs as much additional space as
//     the file has.
//
// used is the offset in the file at which bbolt's pages end, in bytes. On a file system without
// fallocate(2), Preallocate does nothing.
func (f *File) Preallocate(used int64) error {
	want := used + min(used, mostExtra) + leastExtra
	var st unix.Stat_t
	if err := unix.Fstat(int(f.f.Fd()), &st); err != nil {
		return err
	}
	if st.Blocks*blockSize >= want {
		return nil
	}
	// Preallocate reserves a quarter more than the file needs, so that most ADDs need not reserve
	// space.
	err := error(unix.EINTR)
	for errors.Is(err, unix.EINTR) { // by a signal of the Go runtime, on a busy host
		err = unix.Fallocate(int(f.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, want+want/4)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("preallocate disk space for DEL: %w", err)
	}
	return nil
}
