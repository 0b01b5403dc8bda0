package metrics

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocumented compares the table in docs/metrics.md with the metrics of the code.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range newTable() {
		labels := "`" + strings.Join(m.labels, "`, `") + "`"
		if len(m.labels) == 0 {
			labels = "-"
		}
		want = append(want, fmt.Sprintf("| `%s` | %s | %s | %s. |", m.name, m.kind, labels, m.help))
	}
	got := regexp.MustCompile("(?m)^\\| `bridgeveth_.*$").FindAllString(string(page), -1)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("docs/metrics.md has the rows\n%s\n\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestLabels checks that values of labels are escaped, and that equal labels are counted together.
func TestLabels(t *testing.T) {
	all := table(newTable())
	for range 2 {
		all.add("bridgeveth_attachments", 1, "a\"b\\c\nd\xff", "down")
	}
	var out strings.Builder
	if err := all.print(&out); err != nil {
		t.Fatal(err)
	}
	const want = `bridgeveth_attachments{network="a\"b\\c\nd` + "\uFFFD" + `",state="down"} 2` + "\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("got %s\nwant %s", out.String(), want)
	}
}
