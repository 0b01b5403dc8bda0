package cli

import (
	"bytes"
	"io"
	"os"
	"unicode"
	"unicode/utf8"
)

// Stdout and Stderr are the outputs of all commands.
var (
	Stdout = &printable{to: os.Stdout}
	Stderr = &printable{to: os.Stderr}
)

// printable replaces each character of the output that is not printable, except tabs and line ends.
// Names of containers, networks and links come from other programs. They may contain escape
// sequences, which would change the terminal or make an SVG drawing invalid.
type printable struct {
	to   io.Writer
	rest []byte // an incomplete character at the end of the last Write
}

// Write writes b and replaces its unprintable characters. If b ends within a character, Write keeps
// the incomplete character until the next Write.
func (p *printable) Write(b []byte) (int, error) {
	text := append(p.rest, b...)
	var clean bytes.Buffer
	for len(text) > 0 && utf8.FullRune(text) {
		c, size := utf8.DecodeRune(text)
		if c != '\n' && c != '\t' && !unicode.IsPrint(c) {
			c = unicode.ReplacementChar
		}
		clean.WriteRune(c)
		text = text[size:]
	}
	p.rest = bytes.Clone(text)
	if _, err := p.to.Write(clean.Bytes()); err != nil {
		return 0, err
	}
	return len(b), nil
}
