package plugin

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// Codes of our own errors, beside those of the CNI specification 1.1.0
// ("Error"), which leaves 100 and up to plugins.
const (
	CodeExhausted uint = 100 + iota // no free address is left in a range
	CodeTaken                       // a name or an address belongs to something else
	CodeProgram                     // a program that is needed is not installed
	CodeDrift                       // CHECK: something is not as ADD left it
	CodeKernel                      // the kernel refused a step
	CodeDelegate                    // the IPAM plugin failed without a code of its own
)

// Errorf returns a CNI error with a code and a message made as by fmt.Errorf.
// A CNI error among the arguments of %w keeps its own code: whoever raised it
// knew better, unless it is the code that says nothing.
func Errorf(code uint, format string, args ...any) *types.Error {
	err := fmt.Errorf(format, args...)
	var inner *types.Error
	if errors.As(err, &inner) && inner.Code != types.ErrInternal {
		code = inner.Code
	}
	oneLine := strings.ReplaceAll(err.Error(), "\n", "; ") // it is read in a log
	return types.NewError(code, oneLine, "")
}
