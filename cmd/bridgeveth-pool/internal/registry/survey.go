package registry

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// page is the number of keys in one answer of etcd. An answer with all keys of a large pool would be
// larger than etcd's limit for a message.
const page = 1000

// Owner names a network of a host.
type Owner struct{ Host, Network string }

// ownerIn returns the owner in the part HOST/NETWORK of a key.
func ownerIn(name string) Owner {
	host, network, _ := strings.Cut(name, "/")
	return Owner{host, network}
}

// State is what etcd stores about a network of a host.
type State struct {
	Owner
	Name     string    // host name; "" if there is no record
	Boot     string    // ID of the boot
	Heard    time.Time // of the last hear, by the host's clock; zero if it is not known
	Recorded bool      // the host has a record
	Alive    bool      // the host's service runs
	Fenced   bool      // somebody has deleted the record
	Waits    bool      // the grace time of a fenced host has begun
	Blocks   []Claimed // sorted by address
}

// Claimed is a block in the list of a host.
type Claimed struct {
	Block netip.Prefix
	Since time.Time // by the host's clock; zero if it is not known
}

// Owns reports whether a block is in the list of the host.
func (s *State) Owns(b netip.Prefix) bool {
	return slices.ContainsFunc(s.Blocks, func(c Claimed) bool { return c.Block == b })
}

// Survey is what etcd stores about a pool at one moment.
type Survey struct {
	States map[Owner]*State
	Owners map[netip.Prefix]Owner // by the keys of the blocks
	Sizes  map[string]int         // prefix length of the blocks, by family: "ipv4" or "ipv6"
	Bad    []error                // about each key that cannot be decoded
}

// ReadSurvey reads all keys below a prefix in small parts, as they were when it began.
func ReadSurvey(ctx context.Context, kv clientv3.KV, prefix string) (*Survey, error) {
	s := &Survey{States: map[Owner]*State{}, Owners: map[netip.Prefix]Owner{}, Sizes: map[string]int{}}
	for kv, err := range each(ctx, kv, prefix+"/") {
		if err != nil {
			return nil, fmt.Errorf("read the keys below %s/: %w", prefix, err)
		}
		if err := s.add(strings.TrimPrefix(string(kv.Key), prefix+"/"), kv); err != nil {
			s.Bad = append(s.Bad, err)
		}
	}
	return s, nil
}

// Sorted returns the states, sorted by network, host name and identity.
func (s *Survey) Sorted() []*State {
	return slices.SortedFunc(maps.Values(s.States), func(a, b *State) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Host, b.Host))
	})
}

// add adds a key to the survey. The name is the part of the key after the prefix.
func (s *Survey) add(name string, kv *mvccpb.KeyValue) error {
	version, name, _ := strings.Cut(name, "/")
	kind, name, _ := strings.Cut(name, "/")
	of := ownerIn(name)
	if version != fmt.Sprintf("v%d", format) {
		return fmt.Errorf("etcd key %s: %w", kv.Key, ErrNewer)
	}
	switch kind {
	case "size":
		var v sizeValue
		if err := decodeValue(kv, &v); err != nil {
			return err
		}
		s.Sizes[name] = v.Block
	case "hosts":
		var v recordValue
		if err := decodeValue(kv, &v); err != nil {
			return err
		}
		s := s.state(of)
		s.Recorded, s.Name, s.Boot, s.Heard = true, v.Name, v.Boot, parseTime(v.Time)
	case "alive":
		s.state(of).Alive = true
	case "fenced":
		var v fencedValue
		if err := decodeValue(kv, &v); err != nil {
			return err
		}
		s := s.state(of)
		s.Fenced, s.Waits, s.Name = true, v.Grace, v.Name
	case "blocks":
		var v blockValue
		if err := decodeValue(kv, &v); err != nil {
			return err
		}
		b, err := parseBlock(kv, name)
		if err != nil {
			return err
		}
		s.Owners[b] = Owner{v.Host, v.Network}
	case "owned":
		var v ownedValue
		if err := decodeValue(kv, &v); err != nil {
			return err
		}
		network, block, _ := strings.Cut(of.Network, "/")
		b, err := parseBlock(kv, block)
		if err != nil {
			return err
		}
		s := s.state(Owner{of.Host, network})
		s.Blocks = append(s.Blocks, Claimed{b, parseTime(v.Time)})
		slices.SortFunc(s.Blocks, func(a, b Claimed) int { return a.Block.Addr().Compare(b.Block.Addr()) })
	}
	return nil
}

// state returns the state of a host, which may be new.
func (s *Survey) state(of Owner) *State {
	if s.States[of] == nil {
		s.States[of] = &State{Owner: of}
	}
	return s.States[of]
}

// each returns the keys that begin with a text, as they are at the first read.
func each(ctx context.Context, kv clientv3.KV, begin string) iter.Seq2[*mvccpb.KeyValue, error] {
	return func(yield func(*mvccpb.KeyValue, error) bool) {
		from, revision := begin, int64(0)
		for {
			answer, err := kv.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(begin)), clientv3.WithLimit(page), clientv3.WithRev(revision))
			if err != nil {
				yield(nil, err)
				return
			}
			for _, kv := range answer.Kvs {
				if !yield(kv, nil) {
					return
				}
				from = string(kv.Key) + "\x00"
			}
			if !answer.More {
				return
			}
			if revision == 0 {
				revision = answer.Header.Revision
			}
		}
	}
}

// parseTime returns the time in a value, or the zero time.
func parseTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{} // an earlier release wrote no time
	}
	return t
}
