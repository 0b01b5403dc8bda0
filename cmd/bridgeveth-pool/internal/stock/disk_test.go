package stock

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
)

// TestFullDisk fills the stock while the disk of the store is full: before the store exists, and when the store must
// grow. Fill must find the claimed blocks again when the disk has space.
func TestFullDisk(t *testing.T) {
	c := etcdtest.StartCluster(t, etcdtest.Options{}).Client()
	s := stock(t, c, "a")
	s.Pools = pool("10.1.0.0/20", 32)
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", s.Dir, "tmpfs", 0, "mode=700,size=1m"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(s.Dir, unix.MNT_DETACH) }()
	filler := filepath.Join(s.Dir, "filler")
	for _, spare := range []int{1, 100} {
		s.Spare = spare
		if err := os.WriteFile(filler, make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("fill the disk: %v", err)
		}
		if err := s.Fill(etcdtest.Deadline(t)); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), s.Dir) {
			t.Errorf("%d blocks with a full disk: %v", spare, err)
		}
		before := len(strings.Fields(owned(t, c, s)))
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		fill(t, s)
		own, have := owned(t, c, s), strings.Join(sorted(subnets(t, s)), " ")
		if n := len(strings.Fields(own)); own != have || n != spare {
			t.Errorf("etcd has %d blocks, %q, the store %q, want %d", n, own, have, spare)
		}
		t.Logf("the host had claimed %d of %d blocks when the disk was full", before, spare)
	}
}
