// Package docs holds the tests that keep the documentation true.
package docs

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/bridgeveth/bridgeveth/"

// TestArchitecture compares the arrows of both pictures in architecture.md with the imports of
// the packages: every import is an arrow, and every arrow an import.
func TestArchitecture(t *testing.T) {
	text, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	drawn, nodes := map[string]bool{}, map[string]bool{}
	for _, a := range regexp.MustCompile(`(?m)^ +(\S+) --> (\S+)$`).FindAllStringSubmatch(string(text), -1) {
		drawn[a[1]+" --> "+a[2]] = true
		nodes[a[1]], nodes[a[2]] = true, true
	}
	if diff := cmp.Diff(imports(t), drawn); diff != "" {
		t.Errorf("architecture.md and the imports differ (-imports +architecture.md):\n%s", diff)
	}
	for node := range nodes {
		if !strings.Contains(string(text), "`"+node+"`") && !strings.Contains(string(text), "`"+node+"/`") {
			t.Errorf("architecture.md does not say what %s is for", node)
		}
	}
}

// imports lists who imports whom among the packages that ship, without tests, hack and test.
func imports(t *testing.T) map[string]bool {
	t.Helper()
	arrows := map[string]bool{}
	for _, top := range []string{"cmd", "pkg", "plugins"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "setuptest") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			from, err := filepath.Rel("..", filepath.Dir(path))
			for _, i := range file.Imports {
				if to, ours := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module); ours {
					arrows[from+" --> "+to] = true
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return arrows
}
