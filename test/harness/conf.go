package harness

import (
	"encoding/json"
	"os"
	"testing"
)

// Change changes a shipped configuration for a test: the whole list, its first plugin, and that
// plugin's key "ipam".
type Change = func(list, plugin, ipam map[string]any)

// Configure writes a shipped configuration from conf/ to a file, with the given changes.
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
