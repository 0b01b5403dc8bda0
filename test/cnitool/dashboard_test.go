package cnitool

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// labelsOfMetrics returns the labels of each metric in the table of docs/metrics.md. A test of bvctl
// compares this table with the code.
func labelsOfMetrics(t *testing.T, page string) map[string][]string {
	t.Helper()
	all := map[string][]string{"node_textfile_mtime_seconds": {"file"}}
	for _, row := range regexp.MustCompile("(?m)^\\| `(bridgeveth_\\w+)` \\| \\w+ \\| (.*?) \\|").FindAllStringSubmatch(page, -1) {
		all[row[1]] = regexp.MustCompile(`\w+`).FindAllString(row[2], -1)
	}
	if len(all) < 5 {
		t.Fatalf("the table of docs/metrics.md has only %v", all)
	}
	return all
}

// checkQuery checks that a query uses only metrics of bvctl, and that its labels and the labels in
// the texts belong to these metrics.
func checkQuery(t *testing.T, all map[string][]string, query string, texts ...string) {
	t.Helper()
	allowed := []string{"instance"} // Prometheus adds this label
	names := regexp.MustCompile(`\b(bridgeveth|node)_\w+`).FindAllString(query, -1)
	if len(names) == 0 {
		t.Errorf("%s: no metric", query)
	}
	for _, name := range names {
		labels, exists := all[name]
		if !exists {
			t.Errorf("%s: docs/metrics.md has no metric %s", query, name)
		}
		allowed = append(allowed, labels...)
	}
	var used []string
	for _, m := range regexp.MustCompile(`(\w+)(=|!=|=~|!~)"`).FindAllStringSubmatch(query, -1) {
		used = append(used, m[1])
	}
	for _, m := range regexp.MustCompile(`by \(([^)]*)\)`).FindAllStringSubmatch(query, -1) {
		used = append(used, strings.Split(m[1], ", ")...)
	}
	for _, m := range regexp.MustCompile(`{{\s*(?:\$labels\.)?(\w+)\s*}}`).FindAllStringSubmatch(strings.Join(texts, " "), -1) {
		used = append(used, m[1])
	}
	for _, label := range used {
		if !slices.Contains(allowed, label) {
			t.Errorf("%s %q: the metrics have no label %s", query, texts, label)
		}
	}
}

// checkRules checks rules for alerts by Prometheus' own program.
func checkRules(t *testing.T, rules string) {
	t.Run("promtool", func(t *testing.T) {
		promtool, err := exec.LookPath("promtool")
		if err != nil {
			t.Skip("LISTED SKIP: no promtool: install Debian's package prometheus")
		}
		file := filepath.Join(t.TempDir(), "rules.yml")
		if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(promtool, "check", "rules", file).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// TestDashboard checks the dashboard for Grafana by Grafana's schema, and its queries by the table of
// metrics.
func TestDashboard(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../dist/grafana/bridgeveth.json")
	if err != nil {
		t.Fatal(err)
	}
	plugins.RegisterDefaultPlugins() // the schemas of panels and queries
	var schema dashboard.Dashboard   //nolint:staticcheck // the only version that Grafana 10 and 11 import
	err = schema.UnmarshalJSONStrict(text)
	var wrong cog.BuildErrors // an empty list means that nothing is wrong
	if err != nil && !errors.As(err, &wrong) {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Error(w)
	}
	if err := schema.Validate(); err != nil {
		t.Error(err)
	}
	var d struct {
		Panels []struct {
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct {
				Query any
			}
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	all, used := labelsOfMetrics(t, string(page)), ""
	rules := "groups:\n  - name: dashboard\n    rules:\n"
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			checkQuery(t, all, target.Expr, target.LegendFormat)
			used += target.Expr + "\n"
			rules += "      - {record: query, expr: '" + strings.ReplaceAll(target.Expr, "$__rate_interval", "5m") + "'}\n"
		}
	}
	for name := range all {
		if strings.HasPrefix(name, "bridgeveth_") && !strings.Contains(used, name+"{") {
			t.Errorf("no panel shows %s", name)
		}
	}
	for _, v := range d.Templating.List {
		if query, is := v.Query.(map[string]any); is {
			checkQuery(t, all, query["query"].(string))
		}
	}
	checkRules(t, rules)
}

// TestAlerts checks the rules for alerts in docs/metrics.md.
func TestAlerts(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rules, found := strings.Cut(string(page), "```yaml\n")
	rules, _, ended := strings.Cut(rules, "```")
	if !found || !ended {
		t.Fatal("docs/metrics.md has no rules")
	}
	all := labelsOfMetrics(t, string(page))
	for _, rule := range strings.Split(rules, "- alert: ")[1:] {
		query := regexp.MustCompile(`expr: (.*)`).FindStringSubmatch(rule)
		if query == nil {
			t.Fatalf("no expression in %s", rule)
		}
		checkQuery(t, all, query[1], rule)
	}
	checkRules(t, rules)
}
