package docs

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

var update = flag.Bool("update", false, "give each message on errors.md that the code no longer has the closest new text")

// pages are the pages whose quotations of messages are compared with the code. CHANGELOG.md is not
// in the list, because old entries quote old messages.
var pages = []string{"*.md", "../README.md", "../conf/README.md"}

// quotation matches a quoted message of this project: code in italics. In a quotation, "…" stands
// for a value, or for an omitted part of the message.
var quotation = regexp.MustCompile("\\*`([^`]+)`\\*")

// codeNumbers holds the error codes by their names in the code.
var codeNumbers = map[string]uint{
	"ErrIncompatibleCNIVersion":      types.ErrIncompatibleCNIVersion,
	"ErrUnsupportedField":            types.ErrUnsupportedField,
	"ErrInvalidEnvironmentVariables": types.ErrInvalidEnvironmentVariables,
	"ErrIOFailure":                   types.ErrIOFailure,
	"ErrDecodingFailure":             types.ErrDecodingFailure,
	"ErrInvalidNetworkConfig":        types.ErrInvalidNetworkConfig,
	"ErrInvalidNetNS":                types.ErrInvalidNetNS,
	"ErrTryAgainLater":               types.ErrTryAgainLater,
	"ErrPluginNotAvailable":          types.ErrPluginNotAvailable,
	"ErrLimitedConnectivity":         types.ErrLimitedConnectivity,
	"ErrInternal":                    types.ErrInternal,
	"CodeExhausted":                  plugin.CodeExhausted,
	"CodeTaken":                      plugin.CodeTaken,
	"CodeProgram":                    plugin.CodeProgram,
	"CodeDrift":                      plugin.CodeDrift,
	"CodeKernel":                     plugin.CodeKernel,
	"CodeDelegate":                   plugin.CodeDelegate,
}

// unprinted is the error that makes bvctl exit with status 1. Nobody sees its text.
const unprinted = "ErrUnhealthy"

// message is an error message or another text in the source code.
type message struct {
	text     string // with "…" for each value
	at       string // FILE:LINE
	code     string // the name of the error code, if the same call sets the code
	required bool   // errors.md must list the message
}

// TestQuotations checks that every message that a page quotes exists in the code.
func TestQuotations(t *testing.T) {
	code := parse(t)
	for _, pattern := range pages {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("no page %s: %v", pattern, err)
		}
		for _, name := range names {
			for _, quoted := range quotations(t, name) {
				if !slices.ContainsFunc(code.messages, func(m message) bool { return m.contains(quoted) }) {
					near := closest(quoted, code.messages)
					t.Errorf("%s quotes *`%s`*, which is no message in the code. Closest is, in %s:\n\t%s", name, quoted, near.at, near.text)
				}
			}
		}
	}
}

// TestErrorsListed checks that errors.md lists two kinds of errors: error variables, and errors
// whose message has a remedy after "; ". Each must be in the section of its error code. If a
// message was reworded in the code, -update replaces it on the page.
func TestErrorsListed(t *testing.T) {
	code := parse(t)
	listed := map[string]string{} // the number of the code, by message
	for _, section := range strings.Split(read(t, "errors.md"), "\n## Code ")[1:] {
		number, _, _ := strings.Cut(section, ":")
		for _, m := range quotation.FindAllStringSubmatch(section, -1) {
			listed[unescape(m[1])] = number
		}
	}
	if *update {
		rename(t, listed, code.messages)
		return
	}
	for _, m := range code.messages {
		number, found := listed[m.text]
		switch {
		case strings.HasPrefix(m.at, "cmd/bridgeveth-node/"), strings.HasPrefix(m.at, "cmd/bridgeveth-pool/"): // errors of these programs have no code
		case m.required && !found:
			t.Errorf("%s: add this error to the table of its code in docs/errors.md, or run\n\tgo test ./docs -run TestErrorsListed -update\nif only its words have changed:\n\t*`%s`*", m.at, m.text)
		case found && m.code != "" && number != strconv.Itoa(int(codeNumbers[m.code])):
			t.Errorf("%s: this error has the code %s (%d), and docs/errors.md lists it below code %s:\n\t%s", m.at, m.code, codeNumbers[m.code], number, m.text)
		}
	}
}

// TestCodesListed checks that errors.md has a section for every error code that the code uses.
func TestCodesListed(t *testing.T) {
	page := read(t, "errors.md")
	for name, at := range parse(t).codes {
		number, known := codeNumbers[name]
		if !known {
			t.Errorf("%s: add types.%s to codeNumbers in docs/errors_test.go", at, name)
		} else if !strings.Contains(page, fmt.Sprintf("\n## Code %d: ", number)) {
			t.Errorf("%s: add a section \"## Code %d: …\" for %s to docs/errors.md", at, number, name)
		}
	}
}

// rename replaces each message on errors.md that no longer exists in the code. The replacement is
// the most similar of the messages that are missing on errors.md.
func rename(t *testing.T, listed map[string]string, messages []message) {
	t.Helper()
	var added []message
	for _, m := range messages {
		if _, found := listed[m.text]; m.required && !found {
			added = append(added, m)
		}
	}
	page := read(t, "errors.md")
	for text := range listed {
		if len(added) == 0 || slices.ContainsFunc(messages, func(m message) bool { return m.text == text }) {
			continue
		}
		near := closest(text, added)
		t.Logf("replace %q\n\tby %q", text, near.text)
		page = strings.ReplaceAll(page, "*`"+escape(text)+"`*", "*`"+escape(near.text)+"`*")
		added = slices.DeleteFunc(added, func(m message) bool { return m.text == near.text })
	}
	if err := os.WriteFile("errors.md", []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
}

// contains reports whether the message contains all parts of a quotation, in the same order.
func (m message) contains(quoted string) bool {
	rest := m.text
	for _, part := range strings.Split(quoted, "…") {
		_, after, found := strings.Cut(rest, strings.TrimSpace(part))
		if !found {
			return false
		}
		rest = after
	}
	return true
}

// closest returns the message that has the most words in common with a text.
func closest(text string, messages []message) message {
	words := strings.Fields(text)
	return slices.MaxFunc(messages, func(a, b message) int {
		return cmp.Compare(a.likeness(words), b.likeness(words))
	})
}

// likeness returns how similar the message and the given words are: from 0 if they have no word in
// common, to almost 1 if all words are equal.
func (m message) likeness(words []string) float64 {
	own, common := strings.Fields(m.text), 0
	for _, w := range own {
		if w != "…" && slices.Contains(words, w) {
			common++
		}
	}
	return 2 * float64(common) / float64(len(own)+len(words)+1)
}

// quotations returns the messages that a page quotes.
func quotations(t *testing.T, page string) (quoted []string) {
	t.Helper()
	for _, m := range quotation.FindAllStringSubmatch(read(t, page), -1) {
		quoted = append(quoted, unescape(m[1]))
	}
	return quoted
}

// unescape returns a quotation as it is in the code. In a table of Markdown, "|" is written as
// "\|".
func unescape(quoted string) string { return strings.ReplaceAll(quoted, `\|`, "|") }

// escape writes "|" as in a table of Markdown. It is the inverse of unescape.
func escape(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// read returns the content of a page.

func read(t *testing.T, page string) string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// source holds the parts of the source code that the tests need.
type source struct {
	messages []message
	codes    map[string]string // where each error code is used (FILE:LINE), by the name of the code
}

// parse reads the Go files of the shipped packages, without tests.
func parse(t *testing.T) *source {
	t.Helper()
	s := &source{codes: map[string]string{}}
	for _, top := range []string{"cmd", "pkg", "plugins"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "setuptest") {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			if err == nil {
				s.read(set, file)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// read adds the messages and the error codes of a file to s.
func (s *source) read(set *token.FileSet, file *ast.File) {
	at := func(n ast.Node) string {
		p := set.Position(n.Pos())
		return fmt.Sprintf("%s:%d", strings.TrimPrefix(p.Filename, "../"), p.Line)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			if n.Names[0].Name == unprinted {
				return false
			}
			for i, v := range n.Values {
				if call, ok := v.(*ast.CallExpr); ok && strings.HasPrefix(n.Names[i].Name, "Err") && nameOf(call.Fun) == "New" {
					text, _ := literal(call.Args[0])
					s.messages = append(s.messages, message{text: text, at: at(n), required: true})
				}
			}
		case *ast.CallExpr:
			if m := (message{at: at(n)}); m.isError(n) {
				s.messages = append(s.messages, m)
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && (x.Name == "types" && strings.HasPrefix(n.Sel.Name, "Err") && n.Sel.Name != "Error" || x.Name == "plugin" && strings.HasPrefix(n.Sel.Name, "Code")) {
				s.codes[n.Sel.Name] = at(n)
			}
		case ast.Expr:
			if text, ok := literal(n); ok {
				s.messages = append(s.messages, message{text: text, at: at(n)})
				return false
			}
		}
		return true
	})
}

// isError reports whether a call makes an error from a string literal. In this case, isError sets
// the text and the code of m.
func (m *message) isError(call *ast.CallExpr) bool {
	if name := nameOf(call.Fun); name != "Errorf" && name != "New" {
		return false
	}
	for _, arg := range call.Args {
		text, ok := literal(arg)
		if !ok {
			if name := nameOf(arg); codeNumbers[name] != 0 {
				m.code = name
			}
			continue
		}
		m.text, m.required = text, strings.Contains(text, "; ")
		return strings.Trim(text, "… :;") != ""
	}
	return false
}

// nameOf returns the last part of a name, such as Errorf for plugin.Errorf.
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// verbs matches a formatting verb of package fmt.
var verbs = regexp.MustCompile(`%(\[\d+\])?[+#]?[a-zA-Z]`)

// dots matches one or several signs "…" in a row. Each sign stands for a value.
var dots = regexp.MustCompile("…+")

// literal returns the text of a string literal, or of several literals joined by +. In the text,
// "…" stands for each value.
func literal(e ast.Expr) (text string, ok bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(e.Value)
		return dots.ReplaceAllString(verbs.ReplaceAllString(text, "…"), "…"), err == nil
	case *ast.BinaryExpr:
		left, ok := literal(e.X)
		if !ok {
			left = "…"
		}
		right, also := literal(e.Y)
		if !also {
			right = "…"
		}
		return dots.ReplaceAllString(left+right, "…"), e.Op == token.ADD && (ok || also)
	}
	return "", false
}
