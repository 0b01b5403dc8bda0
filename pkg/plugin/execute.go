package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
)

// maxSaid is how many bytes an error shows of what a plugin has said. The last ones are why.
const maxSaid = 2000

// Execute starts another plugin with our environment and a complete configuration,
// passes on what it says on standard error, and returns what it prints: CNI specification
// 1.1.0, section 4, "Delegated plugin execution procedure". An error of its own is a
// types.Error. One that breaks off with plain text has that text in the error: runtimes show
// no more than what we return.
//
// The library's pkg/invoke would do, but it brings OpenTelemetry along, and with
// that net/http and TLS: two megabytes and half a millisecond of every start.
func Execute(path, verb string, conf []byte) ([]byte, error) {
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb) // the last one counts
	cmd.Stdin = bytes.NewReader(conf)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	_, _ = os.Stderr.Write(stderr.Bytes()) // nobody depends on it
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = failure(err, out, stderr.Bytes())
	}
	return out, err
}

// failure is the error of a plugin that has failed, from what it has printed.
func failure(err error, stdout, stderr []byte) error {
	said := &types.Error{}
	if json.Unmarshal(stdout, said) == nil && said.Msg != "" {
		return said
	}
	for _, text := range [][]byte{stdout, stderr} {
		text = bytes.TrimSpace(text)
		if len(text) > maxSaid {
			text = slices.Concat([]byte("…"), text[len(text)-maxSaid:])
		}
		if len(text) > 0 {
			err = fmt.Errorf("%w: %s", err, text)
		}
	}
	return err
}
