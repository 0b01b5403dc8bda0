package setup

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

// Undo is a stack of inverses: what to call, newest first, to take back the
// steps done so far.
type Undo []inverse

type inverse struct {
	what string
	do   func() error
}

// Push adds the inverse of a step that was just done. what names it in errors.
func (u *Undo) Push(what string, do func() error) {
	*u = append(*u, inverse{what, do})
}

// Run takes back everything, newest first, once. An inverse that fails does not
// stop the others; the errors come joined.
func (u *Undo) Run() error {
	flock.Undoing()
	var errs []error
	for _, s := range slices.Backward(*u) {
		if err := s.do(); err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", s.what, err))
		}
	}
	*u = nil
	return errors.Join(errs...)
}
