package attachment

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDocumented checks that docs/configuration.md describes exactly the keys that the code reads.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## bridgeveth\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(section, -1) {
		documented = append(documented, row[1])
	}
	var read []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fromRuntime := []string{"", "-", "cniVersion", "name", "type", "capabilities", "prevResult", "args", "runtimeConfig", "cniVersions",
			"disableCheck", "disableGC", "loadOnlyInlinedPlugins", "cni.dev/valid-attachments"}
		if !f.Anonymous && !slices.Contains(fromRuntime, key) {
			read = append(read, key)
		}
	}
	slices.Sort(documented)
	slices.Sort(read)
	if diff := cmp.Diff(read, documented); diff != "" {
		t.Errorf("keys (-read +documented):\n%s", diff)
	}
}
