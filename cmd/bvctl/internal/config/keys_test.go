package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

// TestKeys compares the tables of keys with the structs that the plugins decode.
func TestKeys(t *testing.T) {
	for _, tt := range []struct {
		name  string
		table []key
		of    reflect.Type
	}{
		{"bridgeveth", networkKeys, reflect.TypeFor[attachment.Config]()},
		{"portmap", portMapKeys, reflect.TypeFor[attachment.PortMapConfig]()},
		{"firewall", firewallKeys, reflect.TypeFor[attachment.FirewallConfig]()},
		{"ipam-simple", ipamKeys, reflect.TypeFor[ipamconfig.Keys]()},
		{"range", rangeKeys, reflect.TypeFor[ipamconfig.Range]()},
		{"pool", poolKeys, reflect.TypeFor[ipamconfig.Pool]()},
		{"etcd", etcdKeys, reflect.TypeFor[ipamconfig.Etcd]()},
		{"route", routeKeys, reflect.TypeFor[ipamconfig.Route]()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inTable := map[string]kind{}
			for _, k := range tt.table {
				inTable[k.Name] = k.Type
			}
			decoded := map[string]kind{}
			for _, f := range reflect.VisibleFields(tt.of) {
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				if f.Anonymous || name == "" || name == "-" || strings.HasPrefix(name, "cni.dev/") {
					continue
				}
				if _, listed := inTable[name]; !listed && slices.Contains(ofRuntimes, name) {
					continue
				}
				decoded[name] = kindOf(f.Type, inTable[name])
			}
			if diff := cmp.Diff(decoded, inTable); diff != "" {
				t.Errorf("keys (-decoded +table):\n%s", diff)
			}
		})
	}
}

// kindOf returns the kind of a field. The type of a field that a plugin parses itself says nothing
// about its kind, so kindOf then returns the kind in the table.
func kindOf(field reflect.Type, table kind) kind {
	if field.Kind() == reflect.Pointer {
		field = field.Elem()
	}
	switch field.Kind() {
	case reflect.Bool:
		return boolean
	case reflect.String:
		return text
	case reflect.Int:
		return number
	case reflect.Map:
		return textsByName
	case reflect.Slice:
		if field.Elem().Kind() == reflect.String {
			return texts
		}
	}
	return table
}

// TestDefaults compares the defaults in the tables with docs/configuration.md.
func TestDefaults(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for section, table := range map[string][]key{"## bridgeveth": networkKeys, "## ipam-simple": ipamKeys, "### Shared pool": poolKeys, "### etcd of a pool": etcdKeys} {
		_, rows, _ := strings.Cut(string(page), "\n"+section+"\n")
		level, _, _ := strings.Cut(section, " ")
		rows, _, _ = strings.Cut(rows, "\n"+level+" ")
		documented := map[string]string{}
		for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|([^|]*)\\|").FindAllStringSubmatch(rows, -1) {
			link := regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)
			documented[row[1]] = strings.TrimSpace(strings.ReplaceAll(link.ReplaceAllString(row[2], "$1"), "`", ""))
		}
		for _, k := range table {
			if documented[k.Name] != k.Default && k.Name != "type" {
				t.Errorf("%s: the default is %q, and docs/configuration.md says %q", k.Name, k.Default, documented[k.Name])
			}
		}
	}
}
