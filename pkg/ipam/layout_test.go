package ipam

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/stickyfile"
)

var update = flag.Bool("update", false, "write the layout of a format that has none yet")

// moment matches a time in a record. The test replaces the time, because it differs between runs.
var moment = regexp.MustCompile(`[0-9]{19}`)

// describe appends a text to out that lists all buckets, keys and records below a bucket.
func describe(out *strings.Builder, name string, b *bolt.Bucket) error {
	fmt.Fprintf(out, "%s (sequence %d)\n", name, b.Sequence())
	return b.ForEach(func(k, v []byte) error {
		if v == nil && b.Bucket(k) != nil {
			return describe(out, name+"/"+string(k), b.Bucket(k))
		}
		if strings.HasSuffix(name, "/kept") { // the key begins with a time, which differs between runs
			k = append([]byte("TIME "), k[8:]...)
		}
		fmt.Fprintf(out, "%s: %q = %q\n", name, k, moment.ReplaceAll(v, []byte("TIME")))
		return nil
	})
}

// TestLayout compares the records of the store and of the sticky file with the folder
// testdata/layout, which contains the records of each format. If the records differ, increase the
// format, write a Convert function for the preceding format, and run the test with -update.
func TestLayout(t *testing.T) {
	dir := t.TempDir()
	s := tryOpen(t, dir)
	s.HostLocal = hostLocal(t, map[string]string{"10.0.0.9": "inherited\r\neth0"})
	for _, name := range []string{"first", "second", "freed", "kept"} {
		r := request(t, name, "10.0.0.0/28", "fd00::/64")
		r.Namespace = Namespace{Path: "/run/netns/" + name, Device: 4, Inode: 4026531840}
		if name == "kept" || name == "second" {
			r.Sticky, r.StickyDir = Sticky{Name: "shop/" + name, For: time.Hour}, filepath.Join(dir, "memory")
		}
		if _, err := s.Reserve(r); err != nil {
			t.Fatal(err)
		}
	}
	onRequest := request(t, "wanted", "10.0.1.0/28")
	onRequest.Sets[0][0].OnRequest, onRequest.Addresses = true, []netip.Addr{netip.MustParseAddr("10.0.1.5")}
	if _, err := s.Reserve(onRequest); err != nil {
		t.Fatal(err)
	}
	release(t, s, "freed", "kept")
	compare := func(kind string, f *boltfile.File) {
		t.Helper()
		var got strings.Builder
		err := f.View(func(tx *bolt.Tx) error {
			return tx.ForEach(func(name []byte, b *bolt.Bucket) error { return describe(&got, string(name), b) })
		})
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(strings.ReplaceAll(got.String(), s.HostLocal, "HOSTLOCAL"), dir, "DIR")
		golden := fmt.Sprintf("testdata/layout/%s-%d.golden", kind, f.Layout.Format)
		want, err := os.ReadFile(golden)
		if errors.Is(err, os.ErrNotExist) && *update {
			want = []byte(text)
			err = os.WriteFile(golden, want, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), text); diff != "" {
			t.Errorf("the layout of the %s is not that of format %d; raise the format (-want +got):\n%s", kind, f.Layout.Format, diff)
		}
	}
	compare("store", &s.file)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := stickyfile.Open(filepath.Join(dir, "memory"), dir)
	if err != nil {
		t.Fatal(err)
	}
	compare("sticky", &names.File)
	if err := names.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestUpgrade checks Open for a store that has the format number 1. If a later release with this
// number wrote the records, the leases must stay. If one of the first releases wrote the records,
// which were shorter, the error must be ErrDamaged.
func TestUpgrade(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(addresses *bolt.Bucket) error
		want   error
	}{
		{"records of format 2", func(*bolt.Bucket) error { return nil }, nil},
		{"records of eight fields", func(addresses *bolt.Bucket) error {
			k, v := addresses.Cursor().First()
			return addresses.Put(bytes.Clone(k), bytes.Join(bytes.Split(v, []byte{0})[:8], []byte{0}))
		}, ErrDamaged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s := tryOpen(t, dir)
			expect(t, s, request(t, "old", "10.0.0.0/28"), "10.0.0.2/28")
			err := s.file.Update(func(tx *bolt.Tx) error {
				addresses := tx.Bucket([]byte("networks")).Bucket([]byte("net")).Bucket([]byte("addresses"))
				return errors.Join(tt.change(addresses), boltfile.Layout{Format: 1}.WriteFormat(tx))
			})
			if err := errors.Join(err, s.Close()); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s, err = Open(dir, time.Second)
				if !errors.Is(err, tt.want) {
					t.Fatalf("got %v, want %v", err, tt.want)
				}
				if err != nil {
					continue
				}
				expect(t, s, request(t, "old", "10.0.0.0/28"), "10.0.0.2/28")
				expect(t, s, request(t, "new", "10.0.0.0/28"), "10.0.0.3/28")
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
