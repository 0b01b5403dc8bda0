package counters

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/files"
)

// Path is the file with the host's counters of ADDs. The node agent creates the file. On a host
// without the node agent, nothing is counted.
const Path = "/run/bridgeveth-node/counters"

// Bounds are upper bounds of the duration of an ADD. ADDs are counted in classes: one class for
// each bound, and one class for longer ADDs.
var Bounds = [...]time.Duration{
	2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, time.Second, 5 * time.Second, 25 * time.Second,
}

// Counts are the values of all counters.
type Counts struct {
	Classes [len(Bounds) + 1]uint64 // ADDs by duration: longer than Bounds[i-1], and at most Bounds[i]
	Sum     time.Duration           // total duration of all ADDs
	Failed  [128]uint64             // number of failed ADDs by error code; index 0 stands for codes above 127
}

// page is the content of the file with the counters.
type page struct {
	layout  uint64
	sum     atomic.Uint64 // ns
	classes [len(Counts{}.Classes)]atomic.Uint64
	failed  [len(Counts{}.Failed)]atomic.Uint64
}

// layout is the first number in the file. It must change whenever the type page changes.
const layout = 0x6276_6164_6473_0001 // "bvadds", version 1

// size is the length of the file, in bytes.
const size = 4096

// errOther means that a file has another layout or another size than this release expects.
var errOther = errors.New("not a file of counters of this release")

// Create creates the file with all counters at 0. If the file exists and has the right layout,
// Create does not change it.
func Create(path string) error {
	_, err := Read(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errOther) {
		return err
	}
	if err := files.MakeFolder(filepath.Dir(path)); err != nil {
		return err
	}
	content := make([]byte, size)
	(*page)(unsafe.Pointer(&content[0])).layout = layout
	temporary := path + ".new"
	if err = os.WriteFile(temporary, content, 0o600); err == nil {
		err = os.Rename(temporary, path)
	}
	return err
}

// Add counts one ADD in the file, if the file exists. The parameter took is the duration of the
// ADD. The parameter code is the CNI code of the ADD's error, or 0 for no error.
func Add(path string, took time.Duration, code uint) error {
	return use(path, func(p *page) {
		class := 0
		for class < len(Bounds) && took > Bounds[class] {
			class++
		}
		p.classes[class].Add(1)
		p.sum.Add(uint64(took))
		if code >= uint(len(p.failed)) {
			p.failed[0].Add(1)
		} else if code > 0 {
			p.failed[code].Add(1)
		}
	})
}

// Read returns the values of all counters in a file.
func Read(path string) (c Counts, err error) {
	err = use(path, func(p *page) {
		for i := range c.Classes {
			c.Classes[i] = p.classes[i].Load()
		}
		for i := range c.Failed {
			c.Failed[i] = p.failed[i].Load()
		}
		c.Sum = time.Duration(p.sum.Load())
	})
	return c, err
}

// use maps a file into memory and calls f with its page.
func use(path string, f func(*page)) error {
	file, err := files.Open(path, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return fmt.Errorf("fstat %s: %w", path, err)
	}
	if st.Size != size { // memory beyond the end of a file cannot be accessed
		return fmt.Errorf("%s: %w", path, errOther)
	}
	memory, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap %s: %w", path, err)
	}
	defer func() { _ = unix.Munmap(memory) }() // fails only for memory that is not mapped
	p := (*page)(unsafe.Pointer(&memory[0]))
	if p.layout != layout {
		return fmt.Errorf("%s: %w", path, errOther)
	}
	f(p)
	return nil
}
