package plugin

import "strings"

// Args parses CNI_ARGS, which is KEY=VALUE;KEY=VALUE (CNI specification 1.1.0, "Parameters"). Runtimes
// write any text there, so Args ignores malformed pairs. The last value of a repeated key counts.
func Args(text string) map[string]string {
	args := map[string]string{}
	for pair := range strings.SplitSeq(text, ";") {
		if key, value, ok := strings.Cut(pair, "="); ok && key != "" {
			args[key] = value
		}
	}
	return args
}
