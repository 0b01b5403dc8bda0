package registry

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
)

// counting counts the answers of etcd to Get, and the keys in the largest one.
type counting struct {
	clientv3.KV
	answers, largest int
}

func (c *counting) Get(ctx context.Context, key string, o ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	answer, err := c.KV.Get(ctx, key, o...)
	if err == nil {
		c.answers++
		c.largest = max(c.largest, len(answer.Kvs))
	}
	return answer, err
}

// TestSurveyLarge reads the keys of 5,000 hosts with two blocks each. Each answer of etcd must be small.
func TestSurveyLarge(t *testing.T) {
	etcdtest.Each(t, func(t *testing.T, c *clientv3.Client) {
		const hosts = 5000
		ctx := etcdtest.Deadline(t)
		prefix := "/" + t.Name()
		for h := 0; h < hosts; h += 20 {
			var puts []clientv3.Op
			for i := h; i < h+20; i++ {
				m := Member{Prefix: prefix, Host: fmt.Sprintf("%032x", i), Network: "net"}
				puts = append(puts, clientv3.OpPut(m.key("hosts"), encode(recordValue{Version: format, Name: fmt.Sprint("node-", i), Token: "token", Time: now()})),
					clientv3.OpPut(m.key("alive"), encode(aliveValue{Version: format})))
				for b := range 2 {
					block := fmt.Sprintf("10.%d.%d.%d/26", i/512, i/2%256, i%2*128+b*64)
					puts = append(puts, clientv3.OpPut(prefix+"/v1/blocks/"+block, encode(blockValue{format, m.Host, m.Network})),
						clientv3.OpPut(m.ownedPrefix()+block, encode(ownedValue{format, now()})))
				}
			}
			if _, err := c.Txn(ctx).Then(puts...).Commit(); err != nil {
				t.Fatal(err)
			}
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		kv := &counting{KV: c}
		s, err := ReadSurvey(ctx, kv, prefix)
		if err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		t.Logf("%d answers, %d keys in the largest, %d KiB of memory for the result", kv.answers, kv.largest, (after.HeapAlloc-before.HeapAlloc)>>10)
		if kv.largest > page || len(s.States) != hosts || len(s.Owners) != 2*hosts || len(s.Bad) > 0 {
			t.Errorf("%d keys in one answer, %d hosts, %d blocks, errors %v", kv.largest, len(s.States), len(s.Owners), s.Bad)
		}
		for of, state := range s.States {
			if !state.Alive || !state.Recorded || state.Name == "" || state.Heard.IsZero() || len(state.Blocks) != 2 || s.Owners[state.Blocks[0].Block] != of {
				t.Fatalf("%+v", state)
			}
		}
	})
}

// writing adds a key after the first answer.
type writing struct {
	clientv3.KV
	key string
}

func (w *writing) Get(ctx context.Context, key string, o ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	answer, err := w.KV.Get(ctx, key, o...)
	if err == nil {
		_, err = w.Put(ctx, w.key, encode(plainValue{format}))
	}
	return answer, err
}

// TestSurveyMoment checks that a survey does not contain keys that were written while it was read, and
// that it names keys that cannot be decoded.
func TestSurveyMoment(t *testing.T) {
	etcdtest.Each(t, func(t *testing.T, c *clientv3.Client) {
		ctx := etcdtest.Deadline(t)
		prefix := "/" + t.Name()
		var puts []clientv3.Op
		for i := range page + 1 {
			puts = append(puts, clientv3.OpPut(fmt.Sprintf("%s/v1/fenced/%04d/net", prefix, i), encode(plainValue{format})))
		}
		for len(puts) > 0 {
			n := min(100, len(puts))
			if _, err := c.Txn(ctx).Then(puts[:n]...).Commit(); err != nil {
				t.Fatal(err)
			}
			puts = puts[n:]
		}
		s, err := ReadSurvey(ctx, &writing{c, prefix + "/v1/fenced/late/net"}, prefix)
		if err != nil || len(s.States) != page+1 {
			t.Errorf("%d hosts, %v", len(s.States), err)
		}
		for key, value := range map[string]string{
			"v2/new": "", "v1/hosts/a/net": `{"version":2}`, "v1/blocks/10.1.0.1/26": `{"version":1}`, "v1/owned/a/net/x": `{"version":1}`, "v1/size/ipv4": `26`,
		} {
			if _, err := c.Put(ctx, prefix+"/bad/"+key, value); err != nil {
				t.Fatal(err)
			}
		}
		s, err = ReadSurvey(ctx, c, prefix+"/bad")
		if err != nil {
			t.Fatal(err)
		}
		want := []string{
			`etcd key P/v1/blocks/10.1.0.1/26: "10.1.0.1/26" is not a block; delete the key`,
			`etcd key P/v1/hosts/a/net: a later release wrote the value; use that release (its version is 2, ours 1)`,
			`etcd key P/v1/owned/a/net/x: "x" is not a block; delete the key`,
			`etcd key P/v1/size/ipv4: "26" is not a value of the pool; if another program wrote the value, delete the key`,
			`etcd key P/v2/new: a later release wrote the value; use that release`,
		}
		for i, bad := range s.Bad {
			if got := strings.ReplaceAll(bad.Error(), prefix+"/bad", "P"); i >= len(want) || got != want[i] {
				t.Errorf("got %s", got)
			}
		}
		if len(s.Bad) != len(want) || len(s.States) != 0 || len(s.Owners) != 0 {
			t.Errorf("%d errors, %v, %v", len(s.Bad), s.States, s.Owners)
		}
	})
}
