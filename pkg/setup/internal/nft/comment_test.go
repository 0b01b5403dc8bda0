package nft

import (
	"bytes"
	"testing"

	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// FuzzComment reads any bytes as a rule that the kernel lists, and as the user data of a rule. Any
// program can give its rules such user data, because the kernel does not check it.
func FuzzComment(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{byte(userdata.TypeComment), 200, 'a'})
	f.Add(userdata.AppendString(userdata.AppendUint32(nil, 7, 9), userdata.TypeComment, "comment"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = Comment(data)
		_ = Comment(nl.NewRtAttr(unix.NFTA_RULE_USERDATA, data).Serialize())
		if len(data) > 254 || bytes.ContainsRune(data, 0) {
			return // no comment: its length, with a zero at the end, has one byte
		}
		rule := nl.NewRtAttr(unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, userdata.TypeComment, string(data))).Serialize()
		if got := Comment(rule); got != string(data) {
			t.Errorf("got %q, want %q", got, data)
		}
	})
}
