package ipamconfig

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDocumented checks that docs/configuration.md describes the keys that the code reads, and no
// others.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## ipam-simple\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*`) \\|.*\\|.*\\|$").FindAllStringSubmatch(section, -1) {
		for _, key := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(strings.Split(row[1], " |")[0], -1) {
			documented = append(documented, key[1])
		}
	}
	var read []string
	for _, keys := range []reflect.Type{reflect.TypeFor[Keys](), reflect.TypeFor[Pool](), reflect.TypeFor[Etcd]()} {
		for _, f := range reflect.VisibleFields(keys) {
			if !f.Anonymous && f.Tag.Get("json") != "-" {
				read = append(read, f.Tag.Get("json"))
			}
		}
	}
	slices.Sort(documented)
	slices.Sort(read)
	if diff := cmp.Diff(read, slices.Compact(documented)); diff != "" { // the page lists the keys of a range twice
		t.Errorf("keys (-read +documented):\n%s", diff)
	}
}
