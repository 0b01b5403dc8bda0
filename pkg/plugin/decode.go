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

// maxShown is the greatest length of a configuration value in an error, in bytes.
const maxShown = 60

// Decode decodes JSON like Read, and also returns an error about unknown keys. This error names
// each key that is no field of v, and has the CNI error code 2. The reference plugins ignore
// unknown keys, so a plugin that runs under the name of a reference plugin ignores this error.
func Decode(data []byte, v any, path string) (unknown, wrong error) {
	rest, known, wrong := read(data, v, path)
	var keys []error
	for _, key := range slices.Sorted(maps.Keys(rest)) {
		if !strings.HasPrefix(key, "cni.dev/") {
			keys = append(keys, Errorf(types.ErrUnsupportedField, "%s%s: unknown key, with value %s%s", path, key, show(rest[key]), Suggest(key, known)))
		}
	}
	return errors.Join(keys...), wrong
}

// Read decodes data, a JSON object, into v, a pointer to a struct. Like encoding/json, it ignores
// unknown keys, because runtimes add keys. It also ignores the case of keys, because containerd
// writes "HostPort" for "hostPort". The parameter path is the prefix of keys in errors: "" or
// "ipam.".
//
// The error names every value of a wrong type and has the CNI error code 7. If data is no valid
// JSON, the code is 6. A field whose value has an error stays unchanged.
func Read(data []byte, v any, path string) error {
	_, _, err := read(data, v, path)
	return err
}

// read decodes like Read. It also returns the keys that are no field of v, and the keys of v's
// fields.
//
// read passes only single values to encoding/json, never a struct. Before encoding/json decodes the
// first struct of a type, it examines the types of all fields. This work pays off only if a process
// decodes many structs of the type, and a plugin decodes only one.
func read(data []byte, v any, path string) (rest map[string]json.RawMessage, known []string, err error) {
	err = json.Unmarshal(data, &rest)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return nil, nil, wrongType(strings.TrimSuffix(path, "."), wrong)
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
					name = other // if a key has several spellings, read always uses the same one
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

// readValue decodes the value of a key into a field of a struct.
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
		return valueError(key, err)
	}
	return nil
}

// readList decodes a list of structs into a field. If one of the structs has an error, the field
// stays unchanged.
func readList(data []byte, field reflect.Value, key string) error {
	var values []json.RawMessage
	if err := json.Unmarshal(data, &values); err != nil {
		return valueError(key, err)
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

// eachField calls f with each field of a struct that has a JSON key, including the fields of
// embedded structs.
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

// valueError returns an error about the value of a key, with the CNI error code 7 (invalid
// configuration).
func valueError(key string, err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return Errorf(types.ErrInvalidNetworkConfig, "%s: %w", key, err) // err comes from the UnmarshalJSON of the type, which explains the value
	}
	if wrong.Field != "" {
		key += "." + wrong.Field
	}
	return wrongType(key, wrong)
}

func wrongType(key string, wrong *json.UnmarshalTypeError) error {
	return Errorf(types.ErrInvalidNetworkConfig, "%s: a JSON %s instead of %s", cmp.Or(key, "configuration"), wrong.Value, article(wrong.Type))
}

// article returns the JSON type for a Go type, with an article: "a string".
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

// show returns a JSON value as one line of at most maxShown bytes.
func show(value json.RawMessage) string {
	var line bytes.Buffer
	if json.Compact(&line, value) != nil || line.Len() > maxShown {
		return string(value[:min(len(value), maxShown)]) + "…"
	}
	return line.String()
}

// Suggest returns a hint that names the known key most similar to the unknown key. It returns "" if
// no known key is within two edits of the unknown key.
func Suggest(key string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := edits(strings.ToLower(key), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	if distance == 0 { // the configuration has both spellings, and read has used the other one
		return fmt.Sprintf("; %q is set already", best)
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// edits returns the Levenshtein distance of a and b: the number of letters that must be added,
// deleted or changed to turn a into b.
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
