// Package bugreport writes the archive of "bvctl doctor --report". sources.go has the list of what it
// contains, and mask.go replaces names and addresses.
package bugreport

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
)

// Entry is a file in the archive.
type Entry struct {
	Name    string
	Content []byte
	Err     error // why the content is missing or incomplete
}

// Write writes an archive with the given entries, and with what the host's kernel, programs and CNI
// files say. If mask is set, it replaces names and addresses. It returns the entries that are
// missing or incomplete, with the reason.
func Write(ctx context.Context, inv *inventory.Inventory, path string, mask bool, entries []Entry) (incomplete []string, err error) {
	entries = append(entries, collect(ctx, inv)...)
	contents := ""
	for _, e := range entries {
		line := e.Name
		if e.Err != nil {
			line += ": " + strings.ReplaceAll(strings.TrimSpace(e.Err.Error()), "\n", "; ")
			incomplete = append(incomplete, line)
		}
		contents += line + "\n"
	}
	entries = append([]Entry{{Name: "contents.txt", Content: []byte(contents)}}, entries...)
	if mask {
		m, err := newMasker(inv, entries)
		if err != nil {
			return nil, err
		}
		for i, e := range entries {
			entries[i].Name, entries[i].Content = m.mask(e.Name), []byte(m.mask(string(e.Content)))
		}
	}
	return incomplete, cli.WriteFile(path, 0o600, func(w io.Writer) error { return pack(w, entries) })
}

// pack writes the entries as a tar.gz archive.
func pack(w io.Writer, entries []Entry) error {
	zipped := gzip.NewWriter(w)
	archive := tar.NewWriter(zipped)
	now := time.Now()
	for _, e := range entries {
		header := &tar.Header{Name: "bridgeveth-report/" + e.Name, Mode: 0o600, Size: int64(len(e.Content)), ModTime: now, Format: tar.FormatPAX}
		err := archive.WriteHeader(header)
		if err == nil {
			_, err = archive.Write(e.Content)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", e.Name, err)
		}
	}
	return errors.Join(archive.Close(), zipped.Close())
}
