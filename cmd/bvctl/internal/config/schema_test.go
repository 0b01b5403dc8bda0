package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

var update = flag.Bool("update", false, "write conf/bridgeveth.schema.json from the tables of keys")

type node = map[string]any

// TestSchema checks that the JSON schema for editors is what the tables of keys say. The tests of
// the module in test/ validate configurations with the file.
func TestSchema(t *testing.T) {
	const path = "../../../../conf/bridgeveth.schema.json"
	var want bytes.Buffer
	e := json.NewEncoder(&want)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(schema()); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil { //nolint:gosec // other users read the file
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("conf/bridgeveth.schema.json is not up to date (%v); run: go test ./cmd/bvctl/internal/config -run TestSchema -update", err)
	}
}

// schema returns the schema of a plugin list, or of a file with a single plugin. It describes the
// keys of bridgeveth and ipam-simple. The plugins with names of reference plugins ignore unknown
// keys, so the schema does not restrict their keys.
func schema() node {
	name := node{"type": "string", "pattern": "^[a-zA-Z0-9][a-zA-Z0-9_.-]*$", "description": "name of the network"}
	version := node{"type": "string", "pattern": `^\d+\.\d+\.\d+$`}
	list := node{
		"name": name, "cniVersion": version, "cniVersions": node{"type": "array", "items": version},
		"plugins": node{"type": "array", "minItems": 1, "items": ref("plugin")},
	}
	for _, key := range []string{"disableCheck", "disableGC", "loadOnlyInlinedPlugins"} {
		list[key] = node{"enum": []any{true, false, "true", "false"}}
	}
	network := closed(networkKeys, nil)
	of := network["properties"].(node)
	for _, key := range ofRuntimes {
		if of[key] == nil {
			of[key] = true
		}
	}
	of["capabilities"] = node{"type": "object", "additionalProperties": node{"type": "boolean"}, "description": "what the runtime may pass: " + strings.Join(capabilities[plugin.Bridgeveth], ", ")}
	of["ipam"].(node)["allOf"] = []any{typed(plugin.IPAMSimple)}
	network["patternProperties"] = node{"^cni\\.dev/": true}
	return node{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Network configuration of bridgeveth", "type": "object",
		"required": []string{"name"},
		"if":       node{"required": []string{"plugins"}},
		"then":     node{"properties": list},
		"else":     node{"properties": node{"name": name, "cniVersion": version}, "allOf": []any{ref("plugin")}},
		"$defs": node{
			"plugin": node{
				"type": "object", "required": []string{"type"}, "properties": node{"type": node{"type": "string", "description": "name of the plugin"}},
				"allOf": []any{typed(plugin.Bridgeveth)},
			},
			plugin.Bridgeveth: network,
			plugin.IPAMSimple: closed(ipamKeys, []string{"ranges"}, []string{"subnet"}),
			"range":           closed(rangeKeys, []string{"subnet"}),
			"route":           closed(routeKeys, []string{"dst"}),
			"pool":            closed(poolKeys, []string{"etcd"}),
			"etcd":            closed(etcdKeys, []string{"endpoints"}),
			"vlanTrunk":       closed(trunkKeys, []string{"id"}, []string{"minID", "maxID"}),
			"dns":             closed(dnsKeys, nil),
		},
	}
}

func ref(to string) node { return node{"$ref": "#/$defs/" + to} }

// typed returns a schema that restricts only the objects of a type, which is the name of a plugin.
func typed(name string) node {
	return node{
		"if":   node{"properties": node{"type": node{"const": name}}, "required": []string{"type"}},
		"then": ref(name),
	}
}

// closed returns the schema of an object that has no other keys than those of the table. At least
// one of the lists of required keys must be complete.
func closed(table []key, required ...[]string) node {
	properties := node{}
	for _, k := range table {
		properties[k.Name] = k.schema()
	}
	s := node{"type": "object", "properties": properties, "additionalProperties": false}
	var alternatives []any
	for _, keys := range required {
		if keys != nil {
			alternatives = append(alternatives, node{"required": keys})
		}
	}
	if alternatives != nil {
		s["anyOf"] = alternatives
	}
	return s
}

// schema returns the schema of the key's value.
func (k key) schema() node {
	integer := node{"type": "integer", "minimum": k.min}
	if k.max > 0 {
		integer["maximum"] = k.max
	}
	s := map[kind]node{
		boolean:       {"type": "boolean"},
		text:          {"type": "string"},
		texts:         {"type": "array", "items": node{"type": "string"}},
		number:        integer,
		numberOrAuto:  {"anyOf": []any{node{"const": "auto"}, integer}},
		booleanOrAuto: {"enum": []any{true, false, "auto"}},
		object:        {"type": "object", "required": []string{"type"}, "properties": node{"type": node{"type": "string"}}},
		textsByName:   {"type": "object", "additionalProperties": node{"type": "string"}},
		dnsObject:     ref("dns"),
		trunkList:     {"type": "array", "items": ref("vlanTrunk")},
		rangeSets:     {"type": "array", "items": node{"type": "array", "minItems": 1, "items": ref("range")}},
		routeList:     {"type": "array", "items": ref("route")},
		poolObject:    ref("pool"),
		etcdObject:    ref("etcd"),
	}[k.Type]
	if k.Values != nil {
		s["enum"] = k.Values
	}
	s["description"] = k.Meaning
	if k.Default != "" {
		s["description"] = k.Meaning + "; default: " + k.Default
	}
	return s
}
