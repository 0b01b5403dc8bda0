package ipam

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Sizes and offsets in bbolt's file format. See internal/boltfile/inspect.go.
const (
	pageSize     = 4096
	metaPages    = 2
	metaOffset   = 16
	metaSum      = 56
	freelistFlag = 0x10
)

// FuzzStore checks that Reserve does not panic if the store's file is damaged. Reserve must return
// a lease, or an error that names the file. To damage the file, FuzzStore overwrites a part of a
// meta page (and then corrects the page's checksum) or of a list of free pages, and truncates the
// file.
//
// FuzzStore does not overwrite pages with data, because bbolt has no checksum for them. A changed
// letter in the name of a network would only make it the name of another network.
func FuzzStore(f *testing.F) {
	path := fill(f, f.TempDir(), 40)
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	var pages []int // meta pages and lists of free pages, also old lists
	for page := range len(whole) / pageSize {
		if page < metaPages || binary.NativeEndian.Uint16(whole[page*pageSize+8:]) == freelistFlag {
			pages = append(pages, page)
		}
	}
	f.Add(uint8(0), uint16(0), []byte{}, uint16(0))
	f.Add(uint8(0), uint16(metaOffset+16), []byte{9}, uint16(0)) // root
	f.Add(uint8(1), uint16(metaOffset+32), []byte{9}, uint16(0)) // list of free pages
	f.Add(uint8(1), uint16(metaOffset+40), []byte{0xff}, uint16(0))
	f.Add(uint8(2), uint16(10), []byte{0xff, 0xff}, uint16(0))
	f.Add(uint8(2), uint16(metaOffset), []byte{3, 0, 0, 0, 0, 0, 0, 0, 3}, uint16(1))
	f.Fuzz(func(t *testing.T, which uint8, offset uint16, patch []byte, less uint16) {
		file := bytes.Clone(whole)
		page := file[pages[int(which)%len(pages)]*pageSize:][:pageSize]
		copy(page[int(offset)%pageSize:], patch)
		sum := fnv.New64a()
		_, _ = sum.Write(page[metaOffset:][:metaSum]) // cannot fail
		if int(which)%len(pages) < metaPages {
			binary.NativeEndian.PutUint64(page[metaOffset+metaSum:], sum.Sum64())
		}
		file = file[:len(file)-int(less)%len(file)]
		path := filepath.Join(t.TempDir(), filepath.Base(path))
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		reserveNamed(t, path)
	})
}

// reserveNamed calls Reserve on a store that may be damaged. If there is an error, it must name the
// file.
func reserveNamed(t *testing.T, path string) {
	s, err := Open(filepath.Dir(path), time.Second)
	if err == nil {
		defer s.Close()
		_, err = s.Reserve(request(t, "new", "10.0.0.0/16", "fd00::/64"))
	}
	if err != nil && !strings.HasPrefix(err.Error(), path+": ") {
		t.Error(err)
	}
}
