package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// link matches a link in Markdown. Its groups are the file, which may be "", and the anchor.
var link = regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)

// TestLinks checks that every link in a page leads to an existing file, and to an existing
// headline in this file.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil || len(pages) < 20 {
		t.Fatalf("found %v: %v", pages, err)
	}
	for _, page := range append(pages, "../README.md", "../CHANGELOG.md", "../CONTRIBUTING.md", "../SECURITY.md", "../conf/README.md") {
		for _, to := range link.FindAllStringSubmatch(read(t, page), -1) {
			path := page
			if to[1] != "" {
				path = filepath.Join(filepath.Dir(page), to[1])
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: link %s: %v", page, to[0], err)
			} else if to[2] != "" && !anchors(read(t, path))[to[2]] {
				t.Errorf("%s: link %s: %s has no headline with this anchor", page, to[0], path)
			}
		}
	}
}

// TestMap checks that docs/README.md, the list of the pages, has a link to every page.
func TestMap(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if page != "README.md" && !strings.Contains(read(t, "README.md"), "]("+page+")") {
			t.Errorf("add a link to %s to the map, docs/README.md", page)
		}
	}
}

// anchors returns the anchors of a page's headlines, as GitHub forms them.
func anchors(page string) map[string]bool {
	found := map[string]bool{}
	for _, headline := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		kept := regexp.MustCompile(`[^\w -]`).ReplaceAllString(strings.ToLower(headline[1]), "")
		found[strings.ReplaceAll(kept, " ", "-")] = true
	}
	return found
}
