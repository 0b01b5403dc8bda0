package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// format is the number of the format of all keys and values. The keys are below "PREFIX/v1/".
const format = 1

// ErrNewer means that a later release has written a value.
var ErrNewer = errors.New("a later release wrote the value; use that release")

// sizeValue is the value of the key size/FAMILY: the prefix length of all blocks of a family.
type sizeValue struct {
	Version int `json:"version"`
	Block   int `json:"block"`
}

// recordValue is the value of the key hosts/HOST/NETWORK.
type recordValue struct {
	Version int    `json:"version"`
	Name    string `json:"name"` // host name, for people
	Boot    string `json:"boot"` // ID of the host's boot
	Token   string `json:"token"`
	Time    string `json:"time,omitempty"` // of this write, for people
}

// aliveValue is the value of the key alive/HOST/NETWORK, which has an etcd lease.
type aliveValue struct {
	Version int    `json:"version"`
	Boot    string `json:"boot"`
}

// blockValue is the value of the key blocks/BLOCK.
type blockValue struct {
	Version int    `json:"version"`
	Host    string `json:"host"`
	Network string `json:"network"`
}

// ownedValue is the value of the key owned/HOST/NETWORK/BLOCK.
type ownedValue struct {
	Version int    `json:"version"`
	Time    string `json:"time,omitempty"` // of the claim, for people
}

// now returns the time for people in a value. The steps of the protocol do not depend on a clock that
// somebody can set.
func now() string { return time.Now().UTC().Format(time.RFC3339) }

// plainValue is the value of a key whose name contains all data.
type plainValue struct {
	Version int `json:"version"`
}

// key returns a key of kind "hosts", "alive" or "fenced" for this member.
func (m *Member) key(kind string) string {
	return Key(m.Prefix, kind+"/"+m.Host+"/"+m.Network)
}

// ownedPrefix returns the beginning of the keys that list the member's blocks.
func (m *Member) ownedPrefix() string { return m.key("owned") + "/" }

func (m *Member) blockKey(b netip.Prefix) string {
	return Key(m.Prefix, "blocks/"+b.String())
}

func (m *Member) sizeKey(b netip.Prefix) string { return Key(m.Prefix, "size/"+Family(b.Addr())) }

// Key returns a key of the pool with this prefix. The name is as in the table of docs/pool.md, without
// the number of the format.
func Key(prefix, name string) string { return fmt.Sprintf("%s/v%d/%s", prefix, format, name) }

// Family returns the name of an address family in the keys: "ipv4" or "ipv6".
func Family(a netip.Addr) string {
	if a.Is4() {
		return "ipv4"
	}
	return "ipv6"
}

// encode returns the JSON text of a value.
func encode(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // the values are structs of strings and numbers
	}
	return string(text)
}

// decode reads the first key of an answer into value. It reports whether there is a key. The error
// names the key.
func decode(keys []*mvccpb.KeyValue, value any) (found bool, err error) {
	if len(keys) == 0 {
		return false, nil
	}
	return true, decodeValue(keys[0], value)
}

// decodeValue reads a key into value. The error names the key.
func decodeValue(kv *mvccpb.KeyValue, value any) error {
	var plain plainValue
	err := json.Unmarshal(kv.Value, &plain)
	if err == nil && plain.Version > format {
		return fmt.Errorf("etcd key %s: %w (its version is %d, ours %d)", kv.Key, ErrNewer, plain.Version, format)
	}
	if err == nil {
		err = json.Unmarshal(kv.Value, value)
	}
	if err != nil || plain.Version < 1 {
		return fmt.Errorf("etcd key %s: %q is not a value of the pool; if another program wrote the value, delete the key", kv.Key, kv.Value)
	}
	return nil
}

// parseBlock returns the block at the end of a key.
func parseBlock(kv *mvccpb.KeyValue, text string) (netip.Prefix, error) {
	b, err := netip.ParsePrefix(text)
	if err != nil || b != b.Masked() {
		return netip.Prefix{}, fmt.Errorf("etcd key %s: %q is not a block; delete the key", kv.Key, text)
	}
	return b, nil
}
