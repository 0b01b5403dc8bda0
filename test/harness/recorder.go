package harness

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Recorder returns a new folder with the plugins. The file bridgeveth in this folder is a script:
// it records its input for Received, and then runs the real bridgeveth. The real plugins are in the
// folder that the parameter programs names.
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

// Received returns one key of the configuration that a runtime passed with the last call of a verb,
// as raw JSON. It returns nil if the configuration does not have the key.
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
