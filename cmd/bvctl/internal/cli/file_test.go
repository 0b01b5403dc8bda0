package cli

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWriteFileTarget checks that WriteFile leaves devices, symbolic links and folders as they are.
func TestWriteFileTarget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	device, link, folder := filepath.Join(dir, "device"), filepath.Join(dir, "link"), filepath.Join(dir, "folder")
	for _, err := range []error{unix.Mkfifo(device, 0o600), os.Symlink("none", link), os.Mkdir(folder, 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{device, link, folder} {
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		err = WriteFile(path, 0o600, func(io.Writer) error { return nil })
		if want := path + " is no regular file; give the path of a new file"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s was replaced: %v", path, err)
		}
	}
}

// TestWriteFileAtOnce checks that calls at the same time all succeed, and that each reader sees a
// complete file.
func TestWriteFileAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	text := strings.Repeat("x", 100_000)
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			for range 25 {
				err := WriteFile(path, 0o600, func(w io.Writer) error {
					for _, half := range []string{text, text} {
						if _, err := io.WriteString(w, half); err != nil {
							return err
						}
					}
					return nil
				})
				if content, wrong := os.ReadFile(path); err != nil || wrong != nil || string(content) != text+text {
					t.Errorf("write: %v, read %d bytes: %v", err, len(content), wrong)
				}
			}
		})
	}
	calls.Wait()
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("files %v, %v", names, err)
	}
}
