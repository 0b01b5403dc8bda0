package ipamsimple

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// args is a command about container id, with ipam's keys as JSON.
func args(id, conf string) *skel.CmdArgs {
	return &skel.CmdArgs{
		ContainerID: id, IfName: "eth0", Netns: "/none/" + id,
		StdinData: []byte(`{"cniVersion":"1.1.0","name":"net","type":"bridgeveth",` + conf + `}`),
	}
}

// pool is a configuration with its leases in dir.
func pool(dir, keys string) string {
	return `"ipam":{"type":"ipam-simple","dataDir":"` + dir + `",` + keys + `}`
}

// code is that of a CNI error, 0 of none.
func code(t testing.TB, err error) uint {
	t.Helper()
	if err == nil {
		return 0
	}
	var e *types.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v has no code", err)
	}
	return e.Code
}

func TestAdd(t *testing.T) {
	dir := t.TempDir()
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("# none\nnameserver 192.0.2.1\nnameserver\nsearch a b\noptions ndots:2 rotate\noptions edns0\ndomain example.org\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := pool(dir, `"RANGES":[[{"SubNet":"10.1.0.0/16","rangeStart":"10.1.2.0","rangeEnd":"","gateway":""}],[{"subnet":"fd00::/64"}]],
		"routes":[{"dst":"192.0.2.0/24","gw":"10.1.0.9","mtu":1400,"advmss":1300,"priority":7,"table":100,"scope":0}],"resolvConf":"`+resolv+`"`)
	want := `{"cniVersion":"1.1.0","dns":{"domain":"example.org","nameservers":["192.0.2.1"],"options":["ndots:2","rotate","edns0"],"search":["a","b"]},` +
		`"ips":[{"address":"10.1.2.0/16","gateway":"10.1.0.1"},{"address":"fd00::2/64","gateway":"fd00::1"}],` +
		`"routes":[{"advmss":1300,"dst":"192.0.2.0/24","gw":"10.1.0.9","mtu":1400,"priority":7,"scope":0,"table":100}]}`
	for range 2 { // the same again
		result, err := Add(args("c1", conf))
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(result)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if err := Del(args("c1", pool(dir, `"ranges":"broken"`))); err != nil { // it needs none
		t.Error(err)
	}
	if err := Del(args("c1", conf)); err != nil {
		t.Error(err)
	}
	result, err := Add(args("c1", conf))
	if err != nil || result.IPs[0].Address.IP.String() != "10.1.2.1" {
		t.Errorf("after DEL: got %v, %v; want the next address", result, err)
	}
}

func TestDelBeforeAnything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	if err := Del(args("c1", pool(dir, `"subnet":"10.1.0.0/16"`))); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("DEL has made a store")
	}
}

func TestExhausted(t *testing.T) {
	dir := t.TempDir()
	conf := pool(dir, `"subnet":"10.1.0.0/30"`)
	if err := Status(args("", conf)); err != nil {
		t.Errorf("STATUS before anything: %v", err)
	}
	netns := filepath.Join(dir, "ns")
	if err := os.WriteFile(netns, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first := args("c1", conf)
	first.Netns = netns
	if _, err := Add(first); err != nil {
		t.Fatal(err)
	}
	if _, err := Add(args("c2", conf)); code(t, err) != 100 {
		t.Errorf("ADD: got %v, want code 100", err)
	}
	if err := Status(args("", conf)); code(t, err) != 100 {
		t.Errorf("STATUS: got %v, want code 100", err)
	}
	if err := os.Remove(netns); err != nil {
		t.Fatal(err)
	}
	HasLink = func(ipam.Attachment) bool { return true }
	if _, err := Add(args("c2", conf)); code(t, err) != 100 {
		t.Errorf("ADD while the link is there: got %v, want code 100", err)
	}
	HasLink = func(ipam.Attachment) bool { return false }
	if err := Status(args("", conf)); err != nil {
		t.Errorf("STATUS with a lease to take back: %v", err)
	}
	if _, err := Add(args("c2", conf)); err != nil {
		t.Errorf("ADD with a lease to take back: %v", err)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	conf := pool(dir, `"subnet":"10.1.0.0/16"`)
	if _, err := Add(args("c1", conf)); err != nil {
		t.Fatal(err)
	}
	previous := func(address string) string {
		return conf + `,"prevResult":{"cniVersion":"1.1.0","ips":[{"address":"` + address + `"},{"address":"192.0.2.7/24"}]}`
	}
	for _, tt := range []struct {
		name, conf string
		id         string
		code       uint
		want       string
	}{
		{"as ADD left it", previous("10.1.0.2/16"), "c1", 0, ""},
		{"another address", previous("10.1.0.3/16"), "c1", 103, "10.1.0.3"},
		{"no lease", previous("10.1.0.2/16"), "c2", 103, "10.1.0.2"},
		{"no result", conf, "c1", 7, "prevResult"},
	} {
		err := Check(args(tt.id, tt.conf))
		if code(t, err) != tt.code || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want code %d and %q", tt.name, err, tt.code, tt.want)
		}
	}
}

func TestGC(t *testing.T) {
	dir := t.TempDir()
	conf := pool(dir, `"subnet":"10.1.0.0/16"`)
	for _, tt := range []struct {
		list string
		code uint
		left int
	}{
		{``, 7, 2},
		{`,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"},{"containerID":"c2","ifname":"eth1"}]`, 0, 1},
		{`,"cni.dev/valid-attachments":[]`, 0, 0},
		{`,"cni.dev/valid-attachments":null`, 0, 0},
	} {
		for _, id := range []string{"c1", "c2"} {
			if _, err := Add(args(id, conf)); err != nil {
				t.Fatal(err)
			}
		}
		if err := GC(args("", conf+tt.list)); code(t, err) != tt.code {
			t.Errorf("%s: got %v, want code %d", tt.list, err, tt.code)
		}
		s, err := ipam.Open(dir, lockWait)
		if err != nil {
			t.Fatal(err)
		}
		leases, err := s.Leases("net")
		if err := errors.Join(err, s.Close()); err != nil || len(leases) != tt.left {
			t.Errorf("%s: %d leases left, %v; want %d", tt.list, len(leases), err, tt.left)
		}
	}
}

func TestReadConfig(t *testing.T) {
	for _, tt := range []struct {
		name, conf string
		code       uint
		want       []string
	}{
		{"no JSON", `"ipam":`, 6, nil},
		{"no ipam", `"bridge":"br0"`, 7, []string{"ipam: it is missing"}},
		{"every mistake at once", pool("", `"subnet":"10.1.2.3/16","ranges":[[{"subnet":"x"},{"subnet":"10.2.0.0/16","gateway":"y"}]]`), 7,
			[]string{"ipam.subnet: 10.1.2.3/16", `ipam.ranges[0][0].subnet: "x"`, `ipam.ranges[0][1].gateway: "y"`}},
		{"two families in a set", pool("", `"ranges":[[{"subnet":"10.1.0.0/16"},{"subnet":"fd00::/64"}]]`), 7, []string{"two families"}},
		{"overlap", pool("", `"subnet":"10.1.0.0/16","ranges":[[{"subnet":"10.1.2.0/24"}]]`), 7, []string{"overlap"}},
		{"an empty set", pool("", `"ranges":[[]]`), 7, []string{"ipam.ranges[0]: the set is empty"}},
		{"misspelt", pool("", `"subnet":"10.1.0.0/16","resolvconv":"x"`), 2, []string{`ipam.resolvconv`, `did you mean "resolvConf"`}},
		{"wrong type", pool("", `"ranges":{"subnet":"10.1.0.0/16"}`), 7, []string{"ipam.ranges", "a list"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readConfig(args("", tt.conf).StdinData)
			if code(t, err) != tt.code {
				t.Errorf("got %v, want code %d", err, tt.code)
			}
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %v", want, err)
				}
			}
		})
	}
}

// FuzzConfig reads arbitrary configurations: what is accepted has valid ranges.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"name":"net","ipam":{"type":"ipam-simple","subnet":"10.1.0.0/16"}}`))
	f.Add([]byte(`{"name":"net","ipam":{"ranges":[[{"subnet":"fd00::/64","rangeStart":"fd00::9"}]],"routes":[{"dst":"::/0"}]}}`))
	f.Add([]byte(`{"ipam":null}`))
	f.Fuzz(func(t *testing.T, conf []byte) {
		c, err := readConfig(conf)
		if err != nil {
			return
		}
		if len(c.sets) == 0 {
			t.Fatal("accepted without a range")
		}
		for _, set := range c.sets {
			for _, r := range set {
				if completed, errs := r.Complete(); len(errs) > 0 || completed != r {
					t.Errorf("accepted %v: %v", r, errs)
				}
			}
		}
	})
}
