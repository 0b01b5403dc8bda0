package main

import (
	"bytes"
	"io"
	"os"
	"unicode"
	"unicode/utf8"
)

// stdout and stderr are where all that bvctl says goes.
var (
	stdout = &printable{to: os.Stdout}
	stderr = &printable{to: os.Stderr}
)

// printable passes text on with a replacement character in the place of everything that is neither
// printed nor the end of a line: names of containers, networks and links come from elsewhere, and an
// escape sequence in one of them would act on the terminal, or make a drawing invalid.
type printable struct {
	to   io.Writer
	rest []byte // the beginning of a character whose end has not come
}

// Write keeps back a character that is cut at the end of b, until its rest comes.
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
