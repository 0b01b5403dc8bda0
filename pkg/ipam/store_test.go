package ipam

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/files"
	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// names returns the names of the files in a folder.
func names(t testing.TB, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// fill makes a store with leases for this number of containers, and returns the path of its file.
func fill(t testing.TB, dir string, leases int) string {
	t.Helper()
	return thisBoot.fill(t, dir, leases)
}

// fill makes a store for the opener's boot, with leases for this number of containers, and returns
// the path of its file.
func (o opener) fill(t testing.TB, dir string, leases int) string {
	t.Helper()
	s := o.tryOpen(t, dir)
	for i := range leases {
		if _, err := s.Reserve(request(t, fmt.Sprint(i), "10.0.0.0/16", "fd00::/64")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s.file.Path
}

// TestReboot checks that leases end when the host boots, and that the next Open removes their file.
func TestReboot(t *testing.T) {
	dir := t.TempDir()
	boot(t, "one").fill(t, dir, 3)
	if err := os.WriteFile(filepath.Join(dir, "leases-zero.db.new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	second := boot(t, "two")
	if _, err := second.openExisting(dir, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after a reboot: got %v, want ErrNotExist", err)
	}
	s := second.tryOpen(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"leases-two.db", "mine"}) {
		t.Errorf("files in the folder: %v", got)
	}
}

// TestOpenUnfinished checks that Open succeeds after a process was killed while it created the
// store.
func TestOpenUnfinished(t *testing.T) {
	for _, size := range []int{0, 100, 20000} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "leases-one.db.new"), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		boot(t, "one").fill(t, dir, 1)
		if got := names(t, dir); !slices.Equal(got, []string{"leases-one.db"}) {
			t.Errorf("files in the folder: %v", got)
		}
	}
}

func TestOpenFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if _, err := OpenExisting(dir, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	s := tryOpen(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v, want mode 0700", info.Mode(), err)
	}
	info, err = os.Stat(s.file.Path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
}

// TestOpenShared checks that the store, the sticky file and the reservations of host-local are not
// opened through a symbolic link in a folder where all users can write, and that nothing is created
// at the target of the link.
func TestOpenShared(t *testing.T) {
	dir, target := filepath.Join(t.TempDir(), "shared"), t.TempDir()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "leases")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(string, time.Duration) (*Store, error){"Open": Open, "OpenExisting": OpenExisting} {
		if s, err := open(link, 0); !errors.Is(err, files.ErrShared) {
			t.Errorf("%s: got %v, %v, want ErrShared", name, s, err)
		}
	}
	s := openTemp(t)
	sticky := request(t, "pod", "10.0.0.0/24")
	sticky.StickyDir, sticky.Sticky = link, Sticky{Name: "ns/pod", For: time.Hour}
	if _, err := s.Reserve(sticky); !errors.Is(err, files.ErrShared) || !errors.Is(err, ErrSticky) {
		t.Errorf("sticky file: got %v, want ErrShared", err)
	}
	s.HostLocal = filepath.Join(dir, "networks")
	if err := os.Symlink(hostLocal(t, map[string]string{"10.0.0.2": "c"}), s.HostLocal); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reserve(request(t, "new", "10.0.0.0/24")); !errors.Is(err, files.ErrShared) {
		t.Errorf("host-local: got %v, want ErrShared", err)
	}
	if got := names(t, target); len(got) != 0 {
		t.Errorf("files at the target of the link: %v", got)
	}
}

func TestOpenLocked(t *testing.T) {
	dir := t.TempDir()
	s := tryOpen(t, dir)
	defer s.Close()
	_, err := Open(dir, 10*time.Millisecond)
	if !errors.Is(err, flock.ErrTimeout) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("got %v, want ErrTimeout with our process", err)
	}
}

// TestOpenOtherProgram checks the error of Open while another program holds bbolt's own lock on the
// file.
func TestOpenOtherProgram(t *testing.T) {
	dir := t.TempDir()
	path := fill(t, dir, 1)
	other, err := bolt.Open(path, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := Open(dir, time.Second); err == nil || !strings.Contains(err.Error(), path+": a program other than bridgeveth") {
		t.Errorf("got %v", err)
	}
}

// damage is one way in which a store's file can be damaged.
type damage struct {
	name  string
	apply func(file []byte) []byte
	want  error
}

// overwrite returns a copy of a file with random bytes in one part. The parameters offset and
// length are the position and the size of this part, in bytes.
func overwrite(file []byte, offset, length int) []byte {
	file = bytes.Clone(file)
	random := rand.New(rand.NewPCG(uint64(offset), 1))
	for i := range length {
		file[offset+i] = byte(random.Uint32())
	}
	return file
}

var damages = []damage{
	{"zero length", func([]byte) []byte { return nil }, ErrDamaged},
	{"one byte", func(f []byte) []byte { return f[:1] }, ErrDamaged},
	{"one page", func(f []byte) []byte { return f[:pageSize] }, ErrDamaged},
	{"both meta pages", func(f []byte) []byte { return f[:2*pageSize] }, ErrDamaged},
	{"half", func(f []byte) []byte { return f[:len(f)/2] }, ErrDamaged},
	{"a page less", func(f []byte) []byte { return f[:len(f)-pageSize] }, ErrDamaged},
	{"a byte less", func(f []byte) []byte { return f[:len(f)-1] }, ErrDamaged},
	{"noise", func(f []byte) []byte { return overwrite(f, 0, len(f)) }, ErrDamaged},
	{"zeros", func(f []byte) []byte { return make([]byte, len(f)) }, ErrDamaged},
	{"noise after the meta pages", func(f []byte) []byte { return overwrite(f, 2*pageSize, len(f)-2*pageSize) }, ErrDamaged},
	{"noise in the first meta page", func(f []byte) []byte { return overwrite(f, 40, 8) }, ErrDamaged},
	{"noise in the second meta page", func(f []byte) []byte { return overwrite(f, pageSize+40, 8) }, ErrDamaged},
	{"a later bbolt", func(f []byte) []byte { f = bytes.Clone(f); f[20] = 9; return f }, ErrNewer},
	{"a later release", func(f []byte) []byte {
		return bytes.ReplaceAll(f, []byte("format2"), []byte("format9"))
	}, ErrNewer},
	{"no format", func(f []byte) []byte {
		return bytes.ReplaceAll(f, []byte("format2"), []byte("farmat2"))
	}, ErrDamaged},
}

// TestOpenDamaged checks the error about a damaged file and about a file of a later release. The
// error must name the file, and Open must not change the file.
func TestOpenDamaged(t *testing.T) {
	for _, tt := range damages {
		t.Run(tt.name, func(t *testing.T) {
			path := fill(t, t.TempDir(), 60)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damaged := tt.apply(whole)
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second call fails if the first one left a lock
				s, err := Open(filepath.Dir(path), time.Second)
				if !errors.Is(err, tt.want) || !strings.HasPrefix(err.Error(), path+": ") {
					t.Fatalf("got %v, %v, want %v", s, err, tt.want)
				}
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(after, damaged) {
				t.Errorf("the file was changed, %v", err)
			}
		})
	}
}

// TestDamagedPage checks that Reserve never gives out a leased address if a page of the file is
// damaged. It damages each page in turn. Reserve may return an error that names the file.
func TestDamagedPage(t *testing.T) {
	path := fill(t, t.TempDir(), 60)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]bool{}
	s := tryOpen(t, filepath.Dir(path))
	leases, err := s.Leases("net")
	for _, l := range leases {
		held[l.Address.String()] = true
	}
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	for page := 2; page < len(whole)/pageSize; page++ {
		for _, part := range []struct{ offset, length int }{{0, pageSize}, {0, 16}, {16, 64}, {2048, 64}} {
			if err := os.WriteFile(path, overwrite(whole, page*pageSize+part.offset, part.length), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(filepath.Dir(path), time.Second)
			if err != nil {
				continue
			}
			got, err := s.Reserve(request(t, "new", "10.0.0.0/16", "fd00::/64"))
			for _, l := range got {
				if held[l.Address.String()] {
					t.Errorf("page %d, %v: %s was given out twice", page, part, l.Address)
				}
			}
			if err != nil && !strings.HasPrefix(err.Error(), path+": ") {
				t.Errorf("page %d, %v: %v", page, part, err)
			}
			_ = s.Close() // Close may fail, but it must release the lock, so that the next Open does not wait
		}
	}
}

// TestTruncatedWhileOpen checks that the store returns an error if its file is truncated while
// bbolt has it mapped. A read beyond the end of the file then causes a memory fault (SIGBUS).
func TestTruncatedWhileOpen(t *testing.T) {
	path := fill(t, t.TempDir(), 60)
	s := tryOpen(t, filepath.Dir(path))
	if err := os.Truncate(path, 2*pageSize); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.Leases("net"); !errors.Is(err, ErrDamaged) {
			t.Errorf("got %v, want ErrDamaged", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestCloseBroken checks that Close releases the file after a panic during a change. bbolt then
// still holds its own locks, and Close must not wait for them.
func TestCloseBroken(t *testing.T) {
	dir := t.TempDir()
	s := tryOpen(t, dir)
	err := s.file.Try(func(*boltfile.Tx) error { panic("at a bad page") })
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := tryOpen(t, dir).Close(); err != nil {
		t.Error(err)
	}
}

// mount mounts a file system of this size in a new mount namespace of the test's thread. The thread
// ends with the test.
func mount(t *testing.T, kilobytes int) string {
	t.Helper()
	dir := t.TempDir()
	runtime.LockOSThread()
	switch err := unix.Unshare(unix.CLONE_NEWNS); {
	case errors.Is(err, unix.EPERM) && os.Getenv("REQUIRE_NETNS") == "":
		t.Skip("no CAP_SYS_ADMIN; run make test")
	case err != nil:
		t.Fatalf("unshare(CLONE_NEWNS): %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatalf("make mounts private: %v", err)
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("mode=700,size=%dk", kilobytes)); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// TestFullDisk checks that Reserve fails on a full disk and leaves no lease, and that all earlier
// leases stay.
func TestFullDisk(t *testing.T) {
	dir := mount(t, 512)
	s := tryOpen(t, dir)
	given, err := 0, error(nil)
	for ; err == nil; given++ {
		_, err = s.Reserve(request(t, fmt.Sprint(given), "10.0.0.0/16"))
	}
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), s.file.Path) {
		t.Fatalf("lease %d: got %v, want ENOSPC", given, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = tryOpen(t, dir)
	checkSound(t, s)
	leases, err := s.Leases("net")
	if len(leases) != given-1 || err != nil {
		t.Errorf("%d leases of %d, %v", len(leases), given-1, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFreeOnFullDisk checks that leases can be freed on a full disk, one by one or all at once. It
// checks this for several numbers of leases, sticky or not.
func TestFreeOnFullDisk(t *testing.T) {
	for _, leases := range []int{1, 2, 7, 60, 500, 3000} {
		for _, sticky := range []bool{false, true} {
			for _, one := range []bool{true, false} {
				t.Run(fmt.Sprintf("%d leases, sticky %v, one by one %v", leases, sticky, one), func(t *testing.T) {
					dir, stickyDir := mount(t, 8192), t.TempDir()
					s := tryOpen(t, dir)
					for i := range leases {
						r := request(t, fmt.Sprint("container-", i), "10.0.0.0/16", "fd00::/64")
						r.Namespace = Namespace{Path: "/run/netns/container", Device: 4, Inode: 4026531840}
						if sticky {
							r.Sticky, r.StickyDir = Sticky{Name: fmt.Sprint("shop/web-", i%100), For: time.Hour}, stickyDir
						}
						if _, err := s.Reserve(r); err != nil {
							t.Fatal(err)
						}
					}
					setuptest.FillDisk(t, filepath.Join(dir, "filler"))
					var err error
					if !one {
						err = s.ReleaseExcept("net", nil)
					}
					for i := 0; one && i < leases && err == nil; i++ {
						if err = s.Release(eth0(fmt.Sprint("container-", i))); i%50 == 0 {
							err = errors.Join(err, s.Close())
							s = tryOpen(t, dir)
						}
					}
					if err != nil {
						t.Fatal(err)
					}
					checkSound(t, s)
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
				})
			}
		}
	}
}

func TestFullDiskCreate(t *testing.T) {
	dir := mount(t, 8)
	for range 2 {
		if _, err := Open(dir, time.Second); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("got %v, want ENOSPC", err)
		}
	}
}

func TestReadOnly(t *testing.T) {
	dir := mount(t, 512)
	readOnly := func(flags uintptr) {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	readOnly(unix.MS_RDONLY)
	if _, err := Open(dir, time.Second); !errors.Is(err, unix.EROFS) {
		t.Errorf("without a store: got %v, want EROFS", err)
	}
	readOnly(0)
	path := fill(t, dir, 1)
	readOnly(unix.MS_RDONLY)
	if _, err := Open(dir, time.Second); !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), path) {
		t.Errorf("with a store: got %v, want EROFS", err)
	}
}
