package docs

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestFuzzTargetsListed checks that security.md lists exactly the fuzz targets that exist.
func TestFuzzTargetsListed(t *testing.T) {
	sources, err := exec.Command("grep", "-rhoE", "--include=*_test.go", "^func Fuzz[A-Za-z]+", "../pkg", "../plugins", "../cmd").Output()
	if err != nil {
		t.Fatal(err)
	}
	page := read(t, "security.md")
	for _, m := range regexp.MustCompile("`(Fuzz[A-Za-z]+)`").FindAllStringSubmatch(page, -1) {
		if !strings.Contains(string(sources), "func "+m[1]+"\n") {
			t.Errorf("security.md lists %s, which does not exist", m[1])
		}
	}
	for name := range strings.Lines(string(sources)) {
		if name = strings.TrimPrefix(strings.TrimSpace(name), "func "); !strings.Contains(page, "`"+name+"`") {
			t.Errorf("security.md does not list %s", name)
		}
	}
}
