package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// TestPreviousNulls checks that Previous refuses null in each list of a result. It uses old and new
// CNI versions, because the CNI library converts results only if their version is older than 1.0.0.
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

// TestPreviousVersions checks that Previous reads a result of each CNI version, whatever the
// version of the configuration is. libcni's records contain such results.
func TestPreviousVersions(t *testing.T) {
	ips := `"ips":[{"version":"4","interface":0,"address":"10.1.0.2/16","gateway":"10.1.0.1"}],"interfaces":[{"name":"eth0","sandbox":"/x"}]`
	results := map[string]string{"0.1.0": `"ip4":{"ip":"10.1.0.2/16","gateway":"10.1.0.1"}`, "0.3.1": ips, "0.4.0": ips, "1.0.0": ips, "1.1.0": ips}
	for own, result := range results {
		for configured := range results {
			result := result
			// CNI libraries before 1.0.0 write results without cniVersion. The test leaves
			// cniVersion out if the result and the configuration have the same version.
			if own != configured {
				result = fmt.Sprintf(`"cniVersion":%q,%s`, own, results[own])
			}
			var conf types.PluginConf
			if err := json.Unmarshal(fmt.Appendf(nil, `{"cniVersion":%q,"prevResult":{%s}}`, configured, result), &conf); err != nil {
				t.Fatal(err)
			}
			got, err := Previous(&conf)
			if err != nil || len(got.IPs) != 1 || got.IPs[0].Address.String() != "10.1.0.2/16" || got.IPs[0].Gateway.String() != "10.1.0.1" {
				t.Errorf("result of %s, configuration of %s: got %v, %v", own, configured, got, err)
			}
		}
	}
}
