package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// settings are the keys and values of a JSON object.
type settings map[string]json.RawMessage

// readSettings returns the keys and values of an object, or none if the text is no object.
func readSettings(text []byte) (s settings) {
	_ = json.Unmarshal(text, &s)
	return s
}

// get returns the value of a key, in one line of JSON. Like the plugins, it ignores the case of the
// key, and treats an empty text as an absent key.
func (s settings) get(key string) string {
	value, exact := s[key]
	for _, other := range sortedKeys(s) {
		if !exact && strings.EqualFold(other, key) {
			value, exact = s[other], true
		}
	}
	var line bytes.Buffer
	if text := string(value); text == `""` || text == "null" || json.Compact(&line, value) != nil {
		return ""
	}
	return line.String()
}

// isTrue returns the key if its value is true, or "".
func (s settings) isTrue(key string) string {
	if s.get(key) == "true" {
		return key
	}
	return ""
}

// isolates returns "ingressPolicy" if this key is "isolated", and the other key is not set.
func (s settings) isolates(other string) string {
	if s.get("ingressPolicy") == `"isolated"` && s.get(other) == "" {
		return "ingressPolicy"
	}
	return ""
}

// effective returns the value of each key.
func effective(keys []key, set settings) (list []value) {
	for _, k := range keys {
		v := value{key: k, Value: set.get(k.Name)}
		if k.implied != nil {
			if implied, by := k.implied(set); by != "" {
				v.Value, v.By = implied, by
			}
		}
		list = append(list, v)
	}
	return list
}

// warn adds a warning.
func (r *report) warn(where, format string, args ...any) {
	r.Warnings = append(r.Warnings, strings.TrimPrefix(where+": "+fmt.Sprintf(format, args...), ": "))
}

// warnList adds a warning for each key of a plugin list that libcni ignores. Unlike the plugins,
// libcni does not ignore the case of a key.
func (r *report) warnList(text []byte) {
	list := readSettings(text)
	if list["plugins"] == nil && list["type"] != nil {
		return // the file has a single plugin
	}
	for _, k := range sortedKeys(list) {
		if !slices.Contains(ofLists, k) {
			r.warn("", "%s: libcni ignores this key%s", k, similar(k, ofLists))
		}
	}
}

// warnRepeated adds a warning for each key that an object has more than once. path is the place of
// the next value of d, which must be valid JSON.
func (r *report) warnRepeated(d *json.Decoder, path string) {
	start, _ := d.Token()
	if start != json.Delim('{') && start != json.Delim('[') {
		return
	}
	seen := map[string]bool{}
	for i := 0; d.More(); i++ {
		below := fmt.Sprintf("%s[%d]", path, i)
		if start == json.Delim('{') {
			key, _ := d.Token()
			below = strings.TrimPrefix(fmt.Sprintf("%s.%v", path, key), ".")
			if seen[below] {
				r.warn("", "%s: the object has this key more than once; only the last value has an effect", below)
			}
			seen[below] = true
		}
		r.warnRepeated(d, below)
	}
	_, _ = d.Token() // the end of the object or list
}

// warnUnknown adds a warning for each key that the plugin ignores, in an object or in a list of
// objects. path precedes the keys in a warning.
func (r *report) warnUnknown(where string, text json.RawMessage, path string, known []string) {
	var list []json.RawMessage
	if json.Unmarshal(text, &list) == nil {
		for i, entry := range list {
			below := fmt.Sprintf("%s[%d]", path, i)
			if bytes.HasPrefix(entry, []byte("{")) {
				below += "."
			}
			r.warnUnknown(where, entry, below, known)
		}
		return
	}
	for _, k := range sortedKeys(readSettings(text)) {
		same := func(name string) bool { return strings.EqualFold(name, k) }
		if !slices.ContainsFunc(known, same) && !strings.HasPrefix(k, "cni.dev/") {
			r.warn(where, "%s%s: the plugin ignores this key%s", path, k, similar(k, known))
		}
	}
}

// similar returns a hint that names the known key most similar to an unknown key, or "".
func similar(k string, known []string) string {
	if i := slices.IndexFunc(known, func(name string) bool { return strings.EqualFold(name, k) }); i >= 0 {
		return fmt.Sprintf("; did you mean %q?", known[i])
	}
	return plugin.Suggest(k, known)
}

// names returns the names of keys.
func names(keys []key) (list []string) {
	for _, k := range keys {
		list = append(list, k.Name)
	}
	return list
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
