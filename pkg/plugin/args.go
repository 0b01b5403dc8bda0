package plugin

import "strings"

// Args parses the text of CNI_ARGS, which has the form KEY=VALUE;KEY=VALUE (CNI specification
// 1.1.0, "Parameters"). It ignores pairs of another form, because some runtimes write any text
// there. If a key is repeated, its last value counts.
func Args(text string) map[string]string {
	args := map[string]string{}
	for pair := range strings.SplitSeq(text, ";") {
		if key, value, ok := strings.Cut(pair, "="); ok && key != "" {
			args[key] = value
		}
	}
	return args
}
