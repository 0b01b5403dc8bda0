package plan

import (
	"errors"
	"fmt"
	"net/netip"
)

// Difference is one object or setting that the plan requires and the host does not have. ADD and
// repair restore the object. CHECK and the doctor report the difference.
type Difference struct {
	What    string       // names the object in errors: "bridge cni0"
	Kind    Kind         // the kind of the object, for programs
	Address netip.Addr   // the address, if Kind is GatewayAddress
	Restore func() error // creates the object
	Sysctl  string       // the key below /proc/sys/net, if the object is a sysctl
	Newer   bool         // older versions of bridgeveth did not add the object; CHECK does not require it for a port with Port.FormerMAC
	Former  bool         // the object exists in the form that an older version of bridgeveth created; CHECK accepts this form
}

// Kind is the kind of object that a Difference is about. Only the kinds that the doctor treats
// specially have a constant. All other objects have the zero Kind.
type Kind int

const (
	// ForwardRules are the rules of a bridge in a FORWARD chain of iptables.
	ForwardRules Kind = iota + 1
	// GatewayAddress is a gateway address of the bridge.
	GatewayAddress
	// RouteOnLink is a route of a container that leads to a single address and has no gateway.
	RouteOnLink
)

// DifferenceError is the error about one Difference. To find out whether an error contains a
// certain difference, call errors.Is with a DifferenceError that has the same Kind and Address. Err
// is the text for people.
type DifferenceError struct {
	Kind    Kind
	Address netip.Addr // the address, if Kind is GatewayAddress, or the destination, if Kind is RouteOnLink
	Err     error
}

// Error returns the text of Err.
func (e DifferenceError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e DifferenceError) Unwrap() error { return e.Err }

// Is reports whether target is a DifferenceError about the same object.
func (e DifferenceError) Is(target error) bool {
	other, ok := target.(DifferenceError)
	return ok && e.Kind == other.Kind && e.Address == other.Address
}

// SysctlDifference returns the Difference for a sysctl that must have this value. key is the path
// of the sysctl below /proc/sys/net.
func SysctlDifference(key, value string, restore func() error) Difference {
	return Difference{What: "sysctl net/" + key + "=" + value, Restore: restore, Sysctl: key}
}

// RestoreAll calls Restore of each difference, in order, and stops at the first error.
func RestoreAll(missing []Difference) error {
	for _, d := range missing {
		if err := d.Restore(); err != nil {
			return err
		}
	}
	return nil
}

// Error returns an error that names every difference, or nil if there is none. It omits each
// difference whose field Former is true, because CHECK accepts an object in the form of an older
// version.
func Error(missing []Difference) error {
	var wrong []error
	for _, d := range missing {
		if !d.Former {
			wrong = append(wrong, DifferenceError{d.Kind, d.Address, fmt.Errorf("%s: missing", d.What)})
		}
	}
	return errors.Join(wrong...)
}

// Differ compares the present value (the parameter "is") with the planned value (the parameter
// "want"). It returns nil if they are equal. Otherwise the error contains both values and the name
// of the object (the parameter "what").
func Differ[T comparable](what string, is, want T) error {
	if is == want {
		return nil
	}
	return fmt.Errorf("%s: is %v instead of %v", what, is, want)
}
