package doctor

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// plain is what a shell takes as it is.
var plain = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

// command is one for a shell, with its words quoted where they have to be.
func command(format string, words ...any) string {
	for i, word := range words {
		if text := fmt.Sprint(word); !plain.MatchString(text) {
			words[i] = "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
		}
	}
	return fmt.Sprintf(format, words...)
}

// in is a command as it is to be run for a container.
func (e *End) in(format string, words ...any) string {
	return command("nsenter --net=%s ", e.Namespace.Path) + command(format, words...)
}

// sysctl reads one of a namespace's; "" if it has none.
func sysctl(ns *setup.Namespace, key string) (value string) {
	_ = ns.Do(func() error { // as documented
		b, err := os.ReadFile("/proc/sys/net/" + key)
		value = strings.TrimSpace(string(b))
		return err
	})
	return value
}

// setSysctl is a command that sets a sysctl.
func setSysctl(key, value string) string {
	return command("sysctl -w %s", setting(key, value))
}

// setting is what sysctl(8) is to be told.
func setting(key, value string) string {
	return "net." + strings.NewReplacer("/", ".", ".", "/").Replace(key) + "=" + value
}
