package plugin

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// Error codes of bridgeveth's plugins. The CNI specification 1.1.0 ("Error") reserves codes from
// 100 on for plugins. docs/errors.md lists all codes.
const (
	CodeExhausted uint = 100 + iota // no free address is left in a range
	CodeTaken                       // something else has the name or the address
	CodeProgram                     // a required program is not installed
	CodeDrift                       // CHECK: something differs from the result of ADD
	CodeKernel                      // the kernel refused a request
	CodeDelegate                    // another plugin failed without a code of its own
)

// Errorf returns a CNI error with a code and one line of text, formatted as by fmt.Errorf. If %w
// wraps a CNI error, the result has the code of the wrapped error, because that code is more
// specific than the parameter code. If the wrapped error has the code types.ErrInternal, the result
// has the parameter code.
func Errorf(code uint, format string, args ...any) *types.Error {
	err := fmt.Errorf(format, args...)
	var inner *types.Error
	if errors.As(err, &inner) && inner.Code != types.ErrInternal {
		code = inner.Code
	}
	oneLine := strings.ReplaceAll(err.Error(), "\n", "; ") // logs show only one line
	return types.NewError(code, oneLine, "")
}
