package elements

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// maxComment is the longest comment of an element, in bytes. The kernel stores the length of user data, which
// includes a header and the final zero, in one byte (struct nft_set_ext_tmpl in net/netfilter/nf_tables.h). It
// refuses a comment that is one byte longer, and silently drops longer comments.
const maxComment = 251

// Owner is the owner of a set element, as the comment of the element names it: an attachment and its bridge
// port.
type Owner struct {
	Port string // name of the attachment's bridge port; each attachment has its own
	plan.Attachment
}

// Comment returns the comment for the set elements of an attachment, cut to maxComment bytes.
func Comment(a plan.Attachment) string {
	text := a.Port() + " " + a.String()
	return text[:min(len(text), maxComment)]
}

// ParseOwner parses a comment that Comment has made.
func ParseOwner(comment string) (o Owner) {
	port, text, _ := strings.Cut(comment, " ")
	parts := append(strings.Split(text, "/"), "?", "?", "?")
	return Owner{port, plan.Attachment{Network: parts[1], Container: parts[2], Interface: parts[3]}}
}

// Unlisted returns a function that reports whether an owner belongs to this CNI network, but is none of the
// valid attachments.
func Unlisted(network string, valid []plan.Attachment) func(Owner) bool {
	keep := map[string]bool{}
	for _, a := range valid {
		keep[a.Port()] = true
	}
	return func(o Owner) bool { return o.Network == network && !keep[o.Port] }
}

// InterfaceKey returns the name of an interface in the form that nf_tables compares: IFNAMSIZ bytes, padded
// with zeros.
func InterfaceKey(name string) []byte {
	return append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...)
}
