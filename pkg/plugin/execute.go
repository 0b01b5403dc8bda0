package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"

	"github.com/containernetworking/cni/pkg/types"
)

// Execute starts another plugin with our environment and a complete configuration,
// passes on what it says on standard error, and returns what it prints: CNI specification
// 1.1.0, section 4, "Delegated plugin execution procedure". An error of its own is a
// types.Error.
//
// The library's pkg/invoke would do, but it brings OpenTelemetry along, and with
// that net/http and TLS: two megabytes and half a millisecond of every start.
func Execute(path, verb string, conf []byte) ([]byte, error) {
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb) // the last one counts
	cmd.Stdin = bytes.NewReader(conf)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		said := &types.Error{}
		if json.Unmarshal(out, said) == nil && said.Msg != "" {
			err = said
		}
	}
	return out, err
}
