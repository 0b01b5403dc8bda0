package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/bugreport"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/doctor"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
)

// writeReport writes the archive of --report. The parameter failure is the error of the examination,
// or nil. writeReport prints what the archive lacks.
func writeReport(ctx context.Context, inv *inventory.Inventory, reports []*doctor.Report, failure error, path string, mask bool, w io.Writer) error {
	var entries []bugreport.Entry
	for _, e := range []struct{ name, output string }{{"doctor.txt", "text"}, {"doctor.json", "json"}} {
		var text bytes.Buffer
		if failure == nil {
			if err := print(reports, e.output, true, &text); err != nil && !errors.Is(err, cli.ErrUnhealthy) {
				return err
			}
		}
		entries = append(entries, bugreport.Entry{Name: e.name, Content: text.Bytes(), Err: failure})
	}
	incomplete, err := bugreport.Write(ctx, inv, path, mask, entries)
	if err != nil {
		return err
	}
	for _, line := range incomplete {
		fmt.Fprintf(w, "%s: without %s\n", path, line)
	}
	fmt.Fprintf(w, "%s: written; look through it before you send it\n", path)
	return nil
}
