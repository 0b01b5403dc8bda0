package plugin

import "strings"

// Args reads CNI_ARGS, which is KEY=VALUE;KEY=VALUE (CNI specification 1.1.0,
// "Parameters"). Runtimes put there whatever they like: what is no pair is passed
// over, and of a key that comes twice the last value counts.
func Args(text string) map[string]string {
	args := map[string]string{}
	for pair := range strings.SplitSeq(text, ";") {
		if key, value, ok := strings.Cut(pair, "="); ok && key != "" {
			args[key] = value
		}
	}
	return args
}
