// Package docs holds tests that compare the documentation with the code.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/bridgeveth/bridgeveth/"

// TestArchitecture compares the pictures in architecture.md with the code: every arrow between
// packages must be an import, and every import must be an arrow.
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

// TestArchitectureFunctions checks that the code has every function that the section about ADD
// names.
func TestArchitectureFunctions(t *testing.T) {
	text, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## What happens during ADD?\n")
	section, _, _ = strings.Cut(section, "\n## ")
	declared := functions(t)
	names := regexp.MustCompile("`(?:Host\\.)?([a-z]+[A-Z][A-Za-z]*|[A-Z][A-Za-z]+|add|attach|plug)`").FindAllStringSubmatch(section, -1)
	for _, n := range names {
		if name := n[1]; !declared[name] && !slices.Contains([]string{"CHECK", "DEL", "Difference", "fastPath"}, name) {
			t.Errorf("architecture.md names the function %s, which does not exist", name)
		}
	}
	if len(names) < 10 {
		t.Errorf("found only %d functions in the section about ADD", len(names))
	}
}

// functions returns the names of all functions and methods in the shipped packages.
func functions(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	eachSource(t, 0, func(_ string, file *ast.File) {
		for _, d := range file.Decls {
			if f, is := d.(*ast.FuncDecl); is {
				names[f.Name.Name] = true
			}
		}
	})
	return names
}

// eachSource calls f with each source file of the shipped packages, and with the folder of the
// file. It omits tests.
func eachSource(t *testing.T, mode parser.Mode, f func(folder string, file *ast.File)) {
	t.Helper()
	for _, top := range []string{"cmd", "pkg", "plugins"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "setuptest") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, mode)
			if err != nil {
				return err
			}
			folder, err := filepath.Rel("..", filepath.Dir(path))
			f(folder, file)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// imports returns the text "A --> B" for each shipped package A and each shipped package B that A
// imports.
func imports(t *testing.T) map[string]bool {
	t.Helper()
	arrows := map[string]bool{}
	eachSource(t, parser.ImportsOnly, func(from string, file *ast.File) {
		for _, i := range file.Imports {
			if to, ours := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module); ours {
				arrows[from+" --> "+to] = true
			}
		}
	})
	return arrows
}
