package report

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// plain matches words that need no quotes in a shell.
var plain = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

// Plain reports whether a word needs no quotes, neither for a shell nor for nft(8).
func Plain(word string) bool { return plain.MatchString(word) }

// Command returns a shell command. It puts quotes around the words that need quotes.
func Command(format string, words ...any) string {
	for i, word := range words {
		if text := fmt.Sprint(word); !Plain(text) {
			words[i] = "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
		}
	}
	return fmt.Sprintf(format, words...)
}

// SetSysctl returns a shell command that sets a key below /proc/sys/net.
func SetSysctl(key, value string) string { return Command("sysctl -w %s", Setting(key, value)) }

// Setting returns the argument of sysctl(8) that sets a key below /proc/sys/net. The argument has
// dots where the path of the key has slashes, and slashes where the path has dots.
func Setting(key, value string) string {
	return "net." + strings.NewReplacer("/", ".", ".", "/").Replace(key) + "=" + value
}

// IP returns the command ip, with the option -6 if the address is an IPv6 address.
func IP(a netip.Addr) string { return map[bool]string{true: "ip", false: "ip -6"}[a.Is4()] }
