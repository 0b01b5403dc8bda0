package poolsim

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"testing"
)

// TestNoWallClock checks that no step of the protocol reads the time of day. The simulation cannot let
// this clock jump: Linux has namespaces for the boot time, but not for the time of day
// (time_namespaces(7)).
func TestNoWallClock(t *testing.T) {
	list := []string{"../../../../pkg/ipam/block.go", "../../../../pkg/ipam/internal/records/block.go"}
	for _, pattern := range []string{"../registry/*.go", "../stock/*.go", "../blocks/*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatal(pattern, err)
		}
		list = append(list, found...)
	}
	files := token.NewFileSet()
	for _, path := range list {
		f, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, is := n.(*ast.SelectorExpr)
			if !is {
				return true
			}
			if filepath.Base(path) == "keys.go" { // it writes the time of a claim for people
				return true
			}
			if x, is := s.X.(*ast.Ident); is && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until"}, s.Sel.Name) {
				t.Errorf("%s: time.%s reads the time of day", files.Position(s.Pos()), s.Sel.Name)
			}
			return true
		})
	}
}
