package harness

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Recorder returns a folder with bridgeveth behind a script that keeps what a runtime
// tells it, for Received, and ipam-simple. Both are those of the folder programs.
func Recorder(t *testing.T, programs string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	script := "#!/bin/sh\ntee /run/received.$CNI_COMMAND | " + filepath.Join(programs, "bridgeveth") + "\n"
	if err := os.WriteFile(filepath.Join(dir, "bridgeveth"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(programs, "ipam-simple"), filepath.Join(dir, "ipam-simple")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Received is one key of what the plugin was told last by a verb, as it was written: nil
// without the key.
func Received(t *testing.T, verb, key string) json.RawMessage {
	t.Helper()
	b, err := os.ReadFile("/run/received." + verb)
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		t.Fatal(err)
	}
	return keys[key]
}
