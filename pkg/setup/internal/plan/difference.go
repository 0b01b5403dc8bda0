package plan

import (
	"errors"
	"fmt"
)

// Difference is one object or setting that a plan asks for and the host does not have. ADD and repair
// restore it. CHECK and the doctor report it.
type Difference struct {
	What    string // names the object in errors: "bridge cni0"
	Restore func() error
	Sysctl  string // the key below /proc/sys/net, if the object is a sysctl
	Newer   bool   // older builds did not add the object; CHECK does not require it for a port with Port.FormerMAC
	Former  bool   // the object exists in the form of an older build; CHECK accepts this form
}

// SysctlDifference returns the Difference for a sysctl that must have value. key is its path below
// /proc/sys/net.
func SysctlDifference(key, value string, restore func() error) Difference {
	return Difference{What: "sysctl net/" + key + "=" + value, Restore: restore, Sysctl: key}
}

// RestoreAll restores the differences in order and stops at the first error.
func RestoreAll(missing []Difference) error {
	for _, d := range missing {
		if err := d.Restore(); err != nil {
			return err
		}
	}
	return nil
}

// Error returns an error that names every difference, except differences that are Former. It returns nil
// if there is no difference to name.
func Error(missing []Difference) error {
	var wrong []error
	for _, d := range missing {
		if !d.Former {
			wrong = append(wrong, fmt.Errorf("%s: missing", d.What))
		}
	}
	return errors.Join(wrong...)
}

// Differ returns nil if is equals want. Otherwise it returns an error that names what.
func Differ[T comparable](what string, is, want T) error {
	if is == want {
		return nil
	}
	return fmt.Errorf("%s: is %v instead of %v", what, is, want)
}
