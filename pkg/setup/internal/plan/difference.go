package plan

import (
	"errors"
	"fmt"
)

// Difference is something that a network needs and that is not there.
type Difference struct {
	What    string
	Restore func() error
	Newer   bool // builds whose ports have formerMAC did without it
}

// RestoreAll makes up for all that is missing, in order.
func RestoreAll(missing []Difference) error {
	for _, l := range missing {
		if err := l.Restore(); err != nil {
			return err
		}
	}
	return nil
}

// Error is an error that names what is lacking, nil if nothing is.
func Error(missing []Difference) error {
	var wrong []error
	for _, l := range missing {
		wrong = append(wrong, fmt.Errorf("%s: missing", l.What))
	}
	return errors.Join(wrong...)
}

// Differ is an error unless is and want are the same.
func Differ[T comparable](what string, is, want T) error {
	if is == want {
		return nil
	}
	return fmt.Errorf("%s: is %v instead of %v", what, is, want)
}
