package setup

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

// Undo is a stack of functions. Each function undoes one step that has succeeded.
type Undo []inverse

type inverse struct {
	what string
	do   func() error
}

// Push adds the function that undoes a step that has just succeeded. The parameter "what" is the
// name of the step in errors.
func (u *Undo) Push(what string, do func() error) {
	*u = append(*u, inverse{what, do})
}

// Run calls the functions of the stack, newest first, and empties the stack. It continues after an
// error and returns all errors joined.
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
