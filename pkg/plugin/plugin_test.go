package plugin

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
)

type keys struct {
	Name string `json:"name"`
	embedded
}

type embedded struct {
	MTU     int      `json:"mtu"`
	Bridges []string `json:"bridges"`
	Inner   inner    `json:"inner"`
	List    []inner  `json:"list"`
}

type inner struct {
	Deep bool `json:"deep"`
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		data string
		code uint
		want []string
	}{
		{`{"name":"x","MTU":1,"bridges":["a"],"cni.dev/anything":1}`, 0, nil},
		{`{"mtu":1,"inner":null,"list":[{"Deep":true,"more":1},null]}`, 0, nil},
		{`[]`, types.ErrInvalidNetworkConfig, []string{"p: a JSON array instead of an object"}},
		{`{`, types.ErrDecodingFailure, nil},
		{`{"mtu":"x"}`, types.ErrInvalidNetworkConfig, []string{"p.mtu", "string", "a number"}},
		{`{"bridges":1}`, types.ErrInvalidNetworkConfig, []string{"p.bridges", "a list"}},
		{`{"inner":{"deep":1}}`, types.ErrInvalidNetworkConfig, []string{"p.inner.deep", "true or false"}},
		{`{"list":[{},{"deep":1}]}`, types.ErrInvalidNetworkConfig, []string{"p.list[1].deep", "true or false"}},
		{`{"list":[true]}`, types.ErrInvalidNetworkConfig, []string{"p.list[0]: a JSON bool instead of an object"}},
		{`{"mtu":"x","list":[{"deep":1},{"deep":2}],"inner":5,"name":7}`, types.ErrInvalidNetworkConfig,
			[]string{"p.mtu: a", "p.list[0].deep: a", "p.list[1].deep: a", "p.inner: a", "p.name: a"}},
		{`{"mtu":"x","mtv":1}`, types.ErrUnsupportedField, []string{"p.mtu: a", "p.mtv: unknown"}},
		{`{"list":{}}`, types.ErrInvalidNetworkConfig, []string{"p.list: a JSON object instead of a list"}},
		{`{"mtv":1,"nothing like it":{"a": [1, 2]}}`, types.ErrUnsupportedField,
			[]string{`p.mtv: unknown key, with value 1; did you mean "mtu"?`, `p.nothing like it: unknown key, with value {"a":[1,2]}`}},
		{`{"MTU":1,"Mtu":2}`, types.ErrUnsupportedField, []string{`p.Mtu: unknown key, with value 2; "mtu" is set already`}},
		{`{"mtu":1,"MTU":2}`, types.ErrUnsupportedField, []string{`p.MTU: unknown key, with value 2; "mtu" is set already`}},
		{`{"far":"` + strings.Repeat("x", 100) + `"}`, types.ErrUnsupportedField, []string{"xxx…"}},
	} {
		var k keys
		err := errors.Join(Decode([]byte(tt.data), &k, "p."))
		var e *types.Error
		if tt.code == 0 {
			if err != nil || k.MTU != 1 || len(k.List) > 0 && !k.List[0].Deep {
				t.Errorf("%s: got %v, %+v", tt.data, err, k)
			}
			continue
		}
		if !errors.As(err, &e) || e.Code != tt.code {
			t.Errorf("%s: got %v, want code %d", tt.data, err, tt.code)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in %q", want, err)
			}
		}
	}
}

func TestArgs(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"":                            {},
		"IgnoreUnknown=1;IP=10.1.0.9": {"IgnoreUnknown": "1", "IP": "10.1.0.9"},
		"a=b=c;junk;=x;;a=d;e=":       {"a": "d", "e": ""},
	} {
		if diff := cmp.Diff(want, Args(text)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

func TestErrorf(t *testing.T) {
	inner := types.NewError(7, "inner", "")
	for _, tt := range []struct {
		err  *types.Error
		code uint
		msg  string
	}{
		{Errorf(100, "plain %d", 1), 100, "plain 1"},
		{Errorf(100, "outer: %w", inner), 7, "outer: inner"},
		{Errorf(100, "%w", errors.Join(errors.New("a"), inner)), 7, "a; inner"},
		{Errorf(100, "%w", types.NewError(types.ErrInternal, "who knows", "")), 100, "who knows"},
	} {
		if tt.err.Code != tt.code || tt.err.Msg != tt.msg {
			t.Errorf("got %d %q, want %d %q", tt.err.Code, tt.err.Msg, tt.code, tt.msg)
		}
	}
}

func TestEdits(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "acb", 2}, {"mtu", "mtv", 1}, {"kitten", "sitting", 3}} {
		if got := edits(tt.a, tt.b); got != tt.want {
			t.Errorf("edits(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

// TestMain runs the test's executable as a plugin if the variable PLUGIN_TEST is set.
func TestMain(m *testing.M) {
	if os.Getenv("PLUGIN_TEST") != "" {
		fails := func(*skel.CmdArgs) error { return Errorf(101, "it is taken") }
		os.Exit(Main("example", Version, skel.CNIFuncs{Add: fails, Del: fails}))
	}
	os.Exit(m.Run())
}

func TestPlugin(t *testing.T) {
	for _, tt := range []struct {
		command, stdin string
		status         int
		stdout, stderr string
	}{
		{"VERSION", `{"cniVersion":"0.4.0"}`, 0, `{"cniVersion":"0.4.0","supportedVersions":["0.1.0"`, ""},
		{"VERSION", ``, 0, `{"cniVersion":"1.`, ""},
		{"", ``, 0, "", "CNI example plugin devel\n"},
		{"ADD", `{"cniVersion":"0.3.1","name":"net"}`, 1, `{"cniVersion":"0.3.1","code":101,"msg":"it is taken"}`, ""},
		{"ADD", `{"cniVersion":"9.9.9","name":"net"}`, 1, `{"cniVersion":"9.9.9","code":1,`, ""},
		{"ADD", `not json`, 1, `"code":6`, ""},
		{"ADD", `{"cniVersion":"1.0.0"}`, 1, `{"cniVersion":"1.0.0","code":7,"msg":"missing network name"`, ""},
		{"DANCE", `{"cniVersion":"1.0.0","name":"net"}`, 1, `"code":4,`, ""},
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "PLUGIN_TEST=yes", "CNI_CONTAINERID=c1", "CNI_NETNS=/none", "CNI_IFNAME=eth0", "CNI_PATH=/none")
		if tt.command != "" {
			cmd.Env = append(cmd.Env, "CNI_COMMAND="+tt.command)
		}
		cmd.Stdin = strings.NewReader(tt.stdin)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run() // the exit status is checked below
		if got := cmd.ProcessState.ExitCode(); got != tt.status {
			t.Errorf("%s %s: status %d, want %d", tt.command, tt.stdin, got, tt.status)
		}
		for _, out := range []struct{ got, want string }{{stdout.String(), tt.stdout}, {stderr.String(), tt.stderr}} {
			if !strings.Contains(out.got, out.want) {
				t.Errorf("%s %s: %q is not in %q", tt.command, tt.stdin, out.want, out.got)
			}
		}
	}
}
