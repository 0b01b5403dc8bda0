package plugin

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// TestPreviousNulls has null in every list: what is left is what there was, and addresses
// are still those of their interfaces.
func TestPreviousNulls(t *testing.T) {
	const lists = `{"interfaces":[null,{"name":"br0"},null,{"name":"eth0","sandbox":"/c1"}],` +
		`"ips":[{"version":"4","interface":3,"address":"10.88.0.2/24"},null,{"version":"4","interface":2,"address":"10.88.0.3/24"},` +
		`{"version":"4","interface":7,"address":"10.88.0.4/24"},{"version":"4","address":"10.88.0.5/24"}],"routes":[null,{"dst":"0.0.0.0/0"}]}`
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		var conf types.PluginConf
		if err := json.Unmarshal(fmt.Appendf(nil, `{"cniVersion":%q,"prevResult":%s}`, version, lists), &conf); err != nil {
			t.Fatal(err)
		}
		r, err := Previous(&conf)
		if err != nil {
			t.Fatal(err)
		}
		r.CNIVersion = "1.1.0"
		const want = `{"cniVersion":"1.1.0","interfaces":[{"name":"br0"},{"name":"eth0","sandbox":"/c1"}],` +
			`"ips":[{"interface":1,"address":"10.88.0.2/24"},{"interface":-1,"address":"10.88.0.3/24"},` +
			`{"interface":7,"address":"10.88.0.4/24"},{"address":"10.88.0.5/24"}],"routes":[{"dst":"0.0.0.0/0"}]}` + "\n"
		if got := string(encodeResult(r)); got != want {
			t.Errorf("%s: got %s, want %s", version, got, want)
		}
	}
}
