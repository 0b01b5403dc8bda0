package harness

import (
	"encoding/json"
	"os"
	"testing"
)

// Change is a change that a test makes to a shipped configuration. list is the whole configuration,
// plugin is its first plugin, and ipam is the key "ipam" of this plugin.
type Change = func(list, plugin, ipam map[string]any)

// Configure applies the changes to a shipped configuration in conf/, and writes the result to a
// file.
func Configure(t testing.TB, shipped, file string, changes ...Change) {
	t.Helper()
	b, err := os.ReadFile("../../conf/" + shipped)
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) > 0 {
		var list map[string]any
		if err := json.Unmarshal(b, &list); err != nil {
			t.Fatal(err)
		}
		plugin := list["plugins"].([]any)[0].(map[string]any)
		for _, c := range changes {
			c(list, plugin, plugin["ipam"].(map[string]any))
		}
		if b, err = json.Marshal(list); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
