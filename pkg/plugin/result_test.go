package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// TestPreviousNulls has null in each list, in versions that the library converts and in those
// that it does not.
func TestPreviousNulls(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		for _, key := range []string{"interfaces", "ips", "routes"} {
			var conf types.PluginConf
			if err := json.Unmarshal(fmt.Appendf(nil, `{"cniVersion":%q,"prevResult":{%q:[{},null]}}`, version, key), &conf); err != nil {
				t.Fatal(err)
			}
			_, err := Previous(&conf)
			e := (*types.Error)(nil)
			if want := "prevResult: " + key + "[1]: null"; !errors.As(err, &e) || e.Code != types.ErrInvalidNetworkConfig || !strings.Contains(e.Msg, want) {
				t.Errorf("%s: got %v, want %q", version, err, want)
			}
		}
	}
}
