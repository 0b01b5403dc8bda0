package ipam

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/stickyfile"
)

// FuzzPages overwrites any part of the store or of the sticky file, and then reserves an address for
// a pod, lists the leases and releases the address. It checks that nothing panics or hangs, and that
// an error names the file.
func FuzzPages(f *testing.F) {
	filled := f.TempDir()
	s := tryOpen(f, filled)
	for i := range 60 {
		r := request(f, string(rune('a'+i%26))+strings.Repeat("x", i), "10.0.0.0/24")
		r.StickyDir, r.Sticky = filled, Sticky{Name: "ns/" + r.Container, For: time.Hour}
		if _, err := s.Reserve(r); err != nil {
			f.Fatal(err)
		}
	}
	store := s.file.Path
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	var files [2][]byte
	for i, path := range []string{store, filepath.Join(filled, stickyfile.Name)} {
		content, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		files[i] = content
	}
	for page := range uint16(12) {
		for _, sticky := range []bool{false, true} {
			f.Add(sticky, page, uint16(0), []byte{0xff, 0xff, 0xff, 0xff})
			f.Add(sticky, page, uint16(8), []byte{1})     // a branch page
			f.Add(sticky, page, uint16(10), []byte{0xff}) // count
			f.Add(sticky, page, uint16(16), bytes.Repeat([]byte{0xff}, 64))
			f.Add(sticky, page, uint16(0), make([]byte, 64))
		}
	}
	f.Fuzz(func(t *testing.T, sticky bool, page, offset uint16, patch []byte) {
		dir := t.TempDir()
		paths := []string{filepath.Join(dir, filepath.Base(store)), filepath.Join(dir, stickyfile.Name)}
		for i, path := range paths {
			content := bytes.Clone(files[i])
			if sticky == (i == 1) {
				copy(content[(int(page)*pageSize+int(offset)%pageSize)%len(content):], patch)
			}
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		use := func(f func(s *Store) error) {
			s, err := Open(dir, time.Second)
			if err == nil {
				err = f(s)
				if closed := s.Close(); err == nil {
					err = closed
				}
			}
			if err != nil && !strings.Contains(err.Error(), dir) && !strings.Contains(err.Error(), "10.0.0.") {
				t.Error(err)
			}
		}
		use(func(s *Store) error {
			r := request(t, "new", "10.0.0.0/24")
			r.StickyDir, r.Sticky = dir, Sticky{Name: "ns/new", For: time.Hour}
			_, err := s.Reserve(r)
			return err
		})
		use(func(s *Store) error { _, err := s.Networks(); return err })
		use(func(s *Store) error { _, err := s.Leases("net"); return err })
		use(func(s *Store) error { return s.ReleaseExcept("net", nil) })
	})
}
