package plugin

import "strings"

// Args parses the text of CNI_ARGS, which has the form KEY=VALUE;KEY=VALUE (CNI specification
// 1.1.0, "Parameters"). Some runtimes write other text into CNI_ARGS, so Args ignores pairs of
// another form. If a key is repeated, Args returns its last value.
func Args(text string) map[string]string {
	args := map[string]string{}
	for pair := range strings.SplitSeq(text, ";") {
		if key, value, ok := strings.Cut(pair, "="); ok && key != "" {
			args[key] = value
		}
	}
	return args
}
