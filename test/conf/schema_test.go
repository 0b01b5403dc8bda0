package conf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schema returns the JSON schema for editors.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(shipped + "bridgeveth.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// validate compares a configuration with the schema.
func validate(t *testing.T, s *jsonschema.Schema, text string) error {
	t.Helper()
	conf, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(conf)
}

// TestSchemaAccepts checks that the schema accepts the files of conf/, and files as other programs
// write them.
func TestSchemaAccepts(t *testing.T) {
	s := schema(t)
	var files []string
	for _, pattern := range []string{shipped + "*.conflist", "../../cmd/bvctl/internal/config/testdata/*.conf*"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) < 5 {
			t.Fatalf("%s: found %v: %v", pattern, found, err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, s, string(text)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestSchemaRejects checks that the schema rejects faulty configurations, and names the key.
func TestSchemaRejects(t *testing.T) {
	s := schema(t)
	for _, tt := range []struct{ plugin, want string }{
		{`{"bridge": "br0"}`, "missing property 'type'"},
		{`{"type": "bridgeveth", "brigde": "br0"}`, "additional properties 'brigde' not allowed"},
		{`{"type": "bridgeveth", "isGateway": "yes"}`, "at '/plugins/0/isGateway': got string, want boolean"},
		{`{"type": "bridgeveth", "mtu": 9}`, "at '/plugins/0/mtu'"},
		{`{"type": "bridgeveth", "vlan": 4095}`, "at '/plugins/0/vlan'"},
		{`{"type": "bridgeveth", "forward": "nft"}`, "at '/plugins/0/forward'"},
		{`{"type": "bridgeveth", "fastPath": "on"}`, "at '/plugins/0/fastPath'"},
		{`{"type": "bridgeveth", "capabilities": ["ips"]}`, "at '/plugins/0/capabilities'"},
		{`{"type": "bridgeveth", "vlanTrunk": [{"minID": 2}]}`, "at '/plugins/0/vlanTrunk/0'"},
		{`{"type": "bridgeveth", "ipam": {"subnet": "10.1.0.0/24"}}`, "at '/plugins/0/ipam': missing property 'type'"},
		{`{"type": "bridgeveth", "ipam": {"type": "ipam-simple"}}`, "at '/plugins/0/ipam'"},
		{`{"type": "bridgeveth", "ipam": {"type": "ipam-simple", "ranges": [{"subnet": "10.1.0.0/24"}]}}`, "at '/plugins/0/ipam/ranges/0': got object, want array"},
		{`{"type": "bridgeveth", "ipam": {"type": "ipam-simple", "ranges": [[{"subnet": "10.1.0.0/24", "gatway": "10.1.0.1"}]]}}`, "additional properties 'gatway' not allowed"},
		{`{"type": "bridgeveth", "ipam": {"type": "ipam-simple", "subnet": "10.1.0.0/24", "routes": [{"via": "10.1.0.1", "dst": "0.0.0.0/0"}]}}`, "additional properties 'via' not allowed"},
	} {
		err := validate(t, s, `{"cniVersion": "1.0.0", "name": "net", "plugins": [`+tt.plugin+`]}`)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.plugin, err, tt.want)
		}
	}
	for _, file := range []string{`{"plugins": [{"type": "bridgeveth"}]}`, `{"name": "net"}`, `{"name": "net", "plugins": []}`, `{"name": "a b", "type": "bridgeveth"}`, `[]`} {
		if validate(t, s, file) == nil {
			t.Errorf("accepted %s", file)
		}
	}
}
