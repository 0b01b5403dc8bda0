package boltfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// Sizes and offsets in bbolt's files. For example, a meta page contains the numbers of the root
// page and of the list of free pages (internal/common/page.go and meta.go of go.etcd.io/bbolt
// v1.5.0). Numbers in the file are in the machine's byte order.
const (
	pageSize     = 4096 // bytes; bbolt would use the page size of the machine
	metaPages    = 2    // bbolt writes the two meta pages in turn, so that one of them is always valid
	metaOffset   = 16   // length of the header of a page, in bytes
	metaSum      = 56   // offset of the checksum, which covers the bytes before it
	metaMagic    = 0xED0CDAED
	metaVersion  = 2
	freelistFlag = 0x10
	manyPages    = 0xFFFF // if the count in the header has this value, the first entry is the length of the list
)

// meta holds the fields of a meta page that inspect needs.
type meta struct{ root, freelist, pages, version uint64 }

// inspect checks what bbolt does not check when it opens a file. It reads the two meta pages and
// the list of free pages. Without inspect, bbolt would:
//
//   - treat an empty file as a new store;
//   - return to the state before the last change if the newest meta page is damaged, so that the
//     last address would be given out twice;
//   - read beyond the end of a file that is too short;
//   - write to pages in use, if a damaged list says that they are free.
func inspect(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	head := make([]byte, metaPages*pageSize)
	if _, err := f.ReadAt(head, 0); errors.Is(err, io.EOF) {
		return fmt.Errorf("%w (it is %d bytes long)", ErrDamaged, info.Size())
	} else if err != nil {
		return err
	}
	var newest meta
	for i := range metaPages {
		m, err := readMeta(head[i*pageSize:])
		if err != nil {
			return err
		}
		if m.version >= newest.version {
			newest = m
		}
	}
	if newest.pages > uint64(info.Size())/pageSize {
		return fmt.Errorf("%w (it is %d bytes long instead of %d)", ErrDamaged, info.Size(), newest.pages*pageSize)
	}
	if min(newest.root, newest.freelist) < metaPages || max(newest.root, newest.freelist) >= newest.pages {
		return fmt.Errorf("%w (the numbers of its pages are wrong)", ErrDamaged)
	}
	return checkFreelist(f, newest)
}

// readMeta reads a meta page. It reports a page with a wrong checksum as damage. A killed process
// cannot leave such a page, because the kernel does not interrupt a write within one page.
func readMeta(page []byte) (m meta, err error) {
	page = page[metaOffset:]
	sum := fnv.New64a()
	_, _ = sum.Write(page[:metaSum]) // cannot fail
	number := binary.NativeEndian.Uint64
	magic, version := binary.NativeEndian.Uint32(page), binary.NativeEndian.Uint32(page[4:])
	switch {
	case magic == metaMagic && version > metaVersion:
		return m, fmt.Errorf("%w (its file format is %d, ours %d)", ErrNewer, version, metaVersion)
	case magic != metaMagic || version != metaVersion || number(page[metaSum:]) != sum.Sum64():
		return m, fmt.Errorf("%w (a meta page is invalid)", ErrDamaged)
	case binary.NativeEndian.Uint32(page[8:]) != pageSize:
		return m, fmt.Errorf("%w (its page size is not %d bytes)", ErrDamaged, pageSize)
	}
	return meta{root: number(page[16:]), freelist: number(page[32:]), pages: number(page[40:]), version: number(page[48:])}, nil
}

// checkFreelist checks the list of free pages. Its entries must be numbers of pages in the file,
// in ascending order.
func checkFreelist(f *os.File, m meta) error {
	invalid := fmt.Errorf("%w (its list of free pages is invalid)", ErrDamaged)
	header := make([]byte, metaOffset)
	if _, err := f.ReadAt(header, int64(m.freelist)*pageSize); err != nil {
		return err
	}
	id, flags := binary.NativeEndian.Uint64(header), binary.NativeEndian.Uint16(header[8:])
	count, overflow := uint64(binary.NativeEndian.Uint16(header[10:])), uint64(binary.NativeEndian.Uint32(header[12:]))
	if id != m.freelist || flags != freelistFlag || overflow >= m.pages-m.freelist {
		return invalid
	}
	list := make([]byte, (overflow+1)*pageSize)
	if _, err := f.ReadAt(list, int64(m.freelist)*pageSize); err != nil {
		return err
	}
	if list = list[metaOffset:]; count == manyPages {
		count, list = binary.NativeEndian.Uint64(list), list[8:]
	}
	if count > uint64(len(list)/8) {
		return invalid
	}
	last := uint64(metaPages - 1)
	for i := range count {
		id := binary.NativeEndian.Uint64(list[8*i:])
		if id <= last || id >= m.pages || id == m.root {
			return invalid
		}
		last = id
	}
	return nil
}
