package plugin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// maxShown is how many bytes of a wrong value an error shows.
const maxShown = 60

// Decode reads the JSON object data into v, a pointer to a struct, like Read, and
// reports each key that is no field of v: code 2.
func Decode(data []byte, v any, path string) error {
	if err := Read(data, v, path); err != nil {
		return err
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(data, &keys); err != nil {
		return Errorf(types.ErrDecodingFailure, "%sconfiguration is no JSON object: %w", path, err)
	}
	known := fields(reflect.TypeOf(v).Elem())
	var unknown []error
	for key, value := range keys {
		if slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, key) }) ||
			strings.HasPrefix(key, "cni.dev/") {
			continue
		}
		unknown = append(unknown, fmt.Errorf("%s%s: unknown key, with value %s%s", path, key, show(value), suggest(key, known)))
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.SortFunc(unknown, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return Errorf(types.ErrUnsupportedField, "%w", errors.Join(unknown...))
}

// Read reads the JSON object data into v, a pointer to a struct, and passes over keys
// that are no field of v. path is what stands before a key in errors, "" or "ipam.".
// Keys match as encoding/json matches them, whatever their case: runtimes depend on
// it. Errors have code 6 (not JSON) or 7 (a value of the wrong type).
func Read(data []byte, v any, path string) error {
	err := json.Unmarshal(data, v)
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong):
		key := strings.TrimSuffix(path+keyPath(wrong.Field, reflect.TypeOf(v).Elem()), ".")
		return Errorf(types.ErrInvalidNetworkConfig, "%s: a JSON %s stands where %s belongs", cmp.Or(key, "configuration"), wrong.Value, article(wrong.Type))
	}
	return Errorf(types.ErrDecodingFailure, "%sconfiguration is no JSON object: %w", path, err)
}

// keyPath is the path of a key as a person writes it: encoding/json names the
// structs that a field is embedded by as well.
func keyPath(field string, t reflect.Type) string {
	path := slices.DeleteFunc(strings.Split(field, "."), func(name string) bool {
		f, ok := t.FieldByName(name)
		return ok && f.Anonymous
	})
	return strings.Join(path, ".")
}

// fields lists the keys that encoding/json reads into a struct.
func fields(t reflect.Type) (names []string) {
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}

// article names a Go type as a JSON one.
func article(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct, reflect.Pointer:
		return "an object"
	default:
		return "a number"
	}
}

// show prints a value in one short line.
func show(value json.RawMessage) string {
	var line bytes.Buffer
	if json.Compact(&line, value) != nil || line.Len() > maxShown {
		return string(value[:min(len(value), maxShown)]) + "…"
	}
	return line.String()
}

// suggest names the known key that is at most two letters away, if any.
func suggest(key string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := edits(strings.ToLower(key), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// edits is the Levenshtein distance: how many letters to add, drop or change.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
