package boltfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The parts of bbolt's file format that say how its pages hang together
// (internal/common/page.go and meta.go of go.etcd.io/bbolt v1.5.0). Numbers are in
// the machine's byte order.
const (
	pageSize     = 4096 // bytes, on every machine
	metaPages    = 2    // written in turn, so that one is always valid
	metaOffset   = 16   // after the page's header
	metaSum      = 56   // the checksum is of the bytes before it
	metaMagic    = 0xED0CDAED
	metaVersion  = 2
	freelistFlag = 0x10
	manyPages    = 0xFFFF // the first entry is then the list's length
)

// meta is what one of the two meta pages says.
type meta struct{ root, freelist, pages, version uint64 }

// inspect looks at what bbolt relies on without looking: it takes an empty file
// for a new one, falls back to the state before the last change when the newest
// meta page is damaged, which would hand out the last address again, reads beyond
// the end of a file that is too short, and writes to the pages that the list of
// free ones names. It reads the file's first two pages, and that list.
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
		return fmt.Errorf("%w (it is %d bytes long, of %d)", ErrDamaged, info.Size(), newest.pages*pageSize)
	}
	if min(newest.root, newest.freelist) < metaPages || max(newest.root, newest.freelist) >= newest.pages {
		return fmt.Errorf("%w (its pages are mixed up)", ErrDamaged)
	}
	return checkFreelist(f, newest)
}

// readMeta reads a meta page. It must be whole: no killed process leaves a torn
// one, since a write within one page is not interrupted.
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
		return m, fmt.Errorf("%w (a meta page is broken)", ErrDamaged)
	case binary.NativeEndian.Uint32(page[8:]) != pageSize:
		return m, fmt.Errorf("%w (its pages are not of %d bytes)", ErrDamaged, pageSize)
	}
	return meta{root: number(page[16:]), freelist: number(page[32:]), pages: number(page[40:]), version: number(page[48:])}, nil
}

// checkFreelist reads the list of free pages: ascending numbers of pages of the
// file.
func checkFreelist(f *os.File, m meta) error {
	broken := fmt.Errorf("%w (its list of free pages is broken)", ErrDamaged)
	header := make([]byte, metaOffset)
	if _, err := f.ReadAt(header, int64(m.freelist)*pageSize); err != nil {
		return err
	}
	id, flags := binary.NativeEndian.Uint64(header), binary.NativeEndian.Uint16(header[8:])
	count, overflow := uint64(binary.NativeEndian.Uint16(header[10:])), uint64(binary.NativeEndian.Uint32(header[12:]))
	if id != m.freelist || flags != freelistFlag || overflow >= m.pages-m.freelist {
		return broken
	}
	list := make([]byte, (overflow+1)*pageSize)
	if _, err := f.ReadAt(list, int64(m.freelist)*pageSize); err != nil {
		return err
	}
	if list = list[metaOffset:]; count == manyPages {
		count, list = binary.NativeEndian.Uint64(list), list[8:]
	}
	if count > uint64(len(list)/8) {
		return broken
	}
	last := uint64(metaPages - 1)
	for i := range count {
		id := binary.NativeEndian.Uint64(list[8*i:])
		if id <= last || id >= m.pages || id == m.root {
			return broken
		}
		last = id
	}
	return nil
}
