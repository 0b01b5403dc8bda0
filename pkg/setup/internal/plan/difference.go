package plan

import (
	"errors"
	"fmt"
)

// Difference is one thing that the plan asks for and the host does not have. ADD and repair
// restore it, CHECK and the doctor report it.
type Difference struct {
	What    string // names the thing in errors: "bridge cni0"
	Restore func() error
	Sysctl  string // the key below /proc/sys/net, if the thing is a sysctl
	Newer   bool   // only newer builds make it; a port with Port.FormerMAC is complete without it
	Former  bool   // the thing is there, as an older build made it; CHECK accepts that
}

// SysctlDifference returns the Difference of a sysctl, by its key below /proc/sys/net, that has
// not the value wanted.
func SysctlDifference(key, value string, restore func() error) Difference {
	return Difference{What: "sysctl net/" + key + "=" + value, Restore: restore, Sysctl: key}
}

// RestoreAll restores the differences in order, up to the first error.
func RestoreAll(missing []Difference) error {
	for _, d := range missing {
		if err := d.Restore(); err != nil {
			return err
		}
	}
	return nil
}

// Error returns an error that names every difference, except those that are Former, nil if there is
// none.
func Error(missing []Difference) error {
	var wrong []error
	for _, d := range missing {
		if !d.Former {
			wrong = append(wrong, fmt.Errorf("%s: missing", d.What))
		}
	}
	return errors.Join(wrong...)
}

// Differ returns an error unless is equals want.
func Differ[T comparable](what string, is, want T) error {
	if is == want {
		return nil
	}
	return fmt.Errorf("%s: is %v instead of %v", what, is, want)
}
