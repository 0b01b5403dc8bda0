package plugin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// maxShown is how many bytes of a wrong value an error shows.
const maxShown = 60

// Decode reads the JSON object data into v, a pointer to a struct, like Read. unknown reports
// each key that is no field of v, with code 2: the reference plugins ignore such keys, so a
// caller that runs under one of their names drops it.
func Decode(data []byte, v any, path string) (unknown, wrong error) {
	rest, known, wrong := read(data, v, path)
	var keys []error
	for _, key := range slices.Sorted(maps.Keys(rest)) {
		if !strings.HasPrefix(key, "cni.dev/") {
			keys = append(keys, fmt.Errorf("%s%s: unknown key, with value %s%s", path, key, show(rest[key]), suggest(key, known)))
		}
	}
	if len(keys) > 0 {
		unknown = Errorf(types.ErrUnsupportedField, "%w", errors.Join(keys...))
	}
	return unknown, wrong
}

// Read reads the JSON object data into v, a pointer to a struct, and passes over keys
// that are no field of v. path is what stands before a key in errors, "" or "ipam.".
// Keys match as encoding/json matches them, whatever their case: runtimes depend on
// it. The error names every value of the wrong type, whose field stays as it was; it has code
// 6 (not JSON) or 7 (a value of the wrong type).
func Read(data []byte, v any, path string) error {
	_, _, err := read(data, v, path)
	return err
}

// read returns the keys that are no field of v, and those that are.
//
// It has encoding/json read each value by itself, and never a struct: for one it would look at
// all fields there are, and what they may hold, before it reads the first. Once in a process,
// that is, but ours lives for one.
func read(data []byte, v any, path string) (rest map[string]json.RawMessage, known []string, err error) {
	err = json.Unmarshal(data, &rest)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return nil, nil, misplaced(strings.TrimSuffix(path, "."), wrong)
	}
	if err != nil {
		return nil, nil, Errorf(types.ErrDecodingFailure, "%sconfiguration is no JSON object: %w", path, err)
	}
	var wrong []error
	eachField(reflect.ValueOf(v).Elem(), func(key string, field reflect.Value) {
		known = append(known, key)
		name := key
		if _, exact := rest[key]; !exact {
			for other := range rest {
				if strings.EqualFold(other, key) && (name == key || other < name) {
					name = other // of several always the same one
				}
			}
		}
		value, given := rest[name]
		if !given {
			return
		}
		delete(rest, name)
		if err := readValue(value, field, path+name); err != nil {
			wrong = append(wrong, err)
		}
	})
	return rest, known, errors.Join(wrong...)
}

// readValue reads the value of a key into a field.
func readValue(data []byte, field reflect.Value, key string) error {
	into := field.Addr().Interface()
	_, itself := into.(json.Unmarshaler)
	switch kind := field.Kind(); {
	case itself:
	case kind == reflect.Struct:
		return Read(data, into, key+".")
	case kind == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct:
		return readList(data, field, key)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return mistake(key, err)
	}
	return nil
}

// readList reads a list of structs, all of them or none.
func readList(data []byte, field reflect.Value, key string) error {
	var values []json.RawMessage
	if err := json.Unmarshal(data, &values); err != nil {
		return mistake(key, err)
	}
	list := reflect.MakeSlice(field.Type(), len(values), len(values))
	var wrong []error
	for i, value := range values {
		wrong = append(wrong, Read(value, list.Index(i).Addr().Interface(), fmt.Sprintf("%s[%d].", key, i)))
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	field.Set(list)
	return nil
}

// eachField calls f with each field of a struct that has a key, those of embedded structs
// among them.
func eachField(v reflect.Value, f func(key string, field reflect.Value)) {
	t := v.Type()
	for i := range t.NumField() {
		is := t.Field(i)
		key, _, _ := strings.Cut(is.Tag.Get("json"), ",")
		switch {
		case is.Anonymous && key == "":
			eachField(v.Field(i), f)
		case key != "" && key != "-":
			f(key, v.Field(i))
		}
	}
}

// mistake is an error about the value of a key.
func mistake(key string, err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return Errorf(types.ErrInvalidNetworkConfig, "%s: %w", key, err) // what the value's own type says
	}
	if wrong.Field != "" {
		key += "." + wrong.Field
	}
	return misplaced(key, wrong)
}

func misplaced(key string, wrong *json.UnmarshalTypeError) error {
	return Errorf(types.ErrInvalidNetworkConfig, "%s: a JSON %s stands where %s belongs", cmp.Or(key, "configuration"), wrong.Value, article(wrong.Type))
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
	if distance == 0 { // read would have taken it
		return fmt.Sprintf("; %q is there already", best)
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
