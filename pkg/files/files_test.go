package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestReadWrite checks that Read returns the text that Write has written, even if the text is
// longer than the buffer of one read(2). It also checks that Read reads a file in /proc.
func TestReadWrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	long := strings.Repeat("0123456789", 5000)
	if err := os.WriteFile(path, []byte(long+"more"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{long, "short"} {
		if err := Write(path, content); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path); string(got) != content || err != nil {
			t.Errorf("wrote %d bytes and read %d, %v", len(content), len(got), err)
		}
	}
	standard, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Read("/proc/sys/kernel/random/boot_id"); string(got) != string(standard) || err != nil {
		t.Errorf("read %q, %v, want %q", got, err, standard)
	}
}

// TestErrors checks that the errors wrap the same values as those of the standard library, and
// contain the path.
func TestErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	_, opened := Open(missing, syscall.O_RDWR, 0)
	_, read := Read(missing)
	_, folder := Read(dir)
	for what, c := range map[string]struct{ got, want error }{
		"open": {opened, fs.ErrNotExist}, "read": {read, fs.ErrNotExist}, "write": {Write(missing, ""), fs.ErrNotExist},
		"read a folder": {folder, syscall.EISDIR}, "write to a folder": {Write(dir, ""), syscall.EISDIR},
	} {
		if !errors.Is(c.got, c.want) || !strings.Contains(c.got.Error(), dir) {
			t.Errorf("%s: %v, want %v", what, c.got, c.want)
		}
	}
}

// TestOpen checks the mode of a new file, and that child processes do not inherit its descriptor.
func TestOpen(t *testing.T) {
	t.Parallel()
	f, err := Open(filepath.Join(t.TempDir(), "new"), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_GETFD, 0)
	if errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v: other programs inherit the descriptor", flags, errno)
	}
}
