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

// maxOutput is the greatest length of a plugin's output in an error, in bytes. The error contains
// the end of a longer output, because the cause is at the end.
const maxOutput = 2000

// Execute runs another plugin with the configuration conf and the environment of this process. It
// returns the plugin's standard output (CNI specification 1.1.0, section 4, "Delegated plugin
// execution procedure"), and copies the plugin's standard error to that of this process. If the
// plugin prints a CNI error, Execute returns it as a types.Error. If the plugin fails with plain
// text, the error contains the text, because runtimes show only errors.
//
// pkg/invoke of the CNI library does the same, but it imports OpenTelemetry, net/http and TLS.
// These imports cost two megabytes and half a millisecond at every start.
func Execute(path, verb string, conf []byte) ([]byte, error) {
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb) // if the environment has several CNI_COMMANDs, the last one counts
	cmd.Stdin = bytes.NewReader(conf)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	_, _ = os.Stderr.Write(stderr.Bytes()) // an error here must not hide the plugin's error
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = failure(err, out, stderr.Bytes())
	}
	return out, err
}

// failure returns the error of a plugin that has failed, with the plugin's output.
func failure(err error, stdout, stderr []byte) error {
	printed := &types.Error{}
	if json.Unmarshal(stdout, printed) == nil && printed.Msg != "" {
		return printed
	}
	for _, text := range [][]byte{stdout, stderr} {
		text = bytes.TrimSpace(text)
		if len(text) > maxOutput {
			text = slices.Concat([]byte("…"), text[len(text)-maxOutput:])
		}
		if len(text) > 0 {
			err = fmt.Errorf("%w: %s", err, text)
		}
	}
	return err
}
