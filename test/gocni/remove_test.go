package gocni

import (
	"os"
	"path/filepath"
	"testing"

	gocni "github.com/containerd/go-cni"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestRemove checks that containerd can detach a container whose network namespace is gone or
// unknown.
func TestRemove(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose func(t *testing.T, c *setup.Namespace) (path string)
	}{
		{"gone", func(t *testing.T, c *setup.Namespace) string {
			setuptest.Run(t, "umount", c.Path)
			setuptest.Run(t, "rm", c.Path)
			return c.Path
		}},
		{"closed by containerd", func(t *testing.T, c *setup.Namespace) string {
			setuptest.Run(t, "umount", c.Path)
			return ""
		}},
		{"unknown", func(*testing.T, *setup.Namespace) string { return "" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setuptest.InHost(t, func() {
				n := newNode(t)
				n.configure("net")
				n.start(1)
				before := setuptest.Dump(t)
				id, c, labels := n.container(1)
				ports := gocni.WithCapabilityPortMap([]gocni.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}})
				if _, err := n.Setup(t.Context(), id, c.Path, labels, ports); err != nil {
					t.Fatal(err)
				}
				c.Close()
				path := tt.lose(t, c)
				for range 2 {
					if err := n.Remove(t.Context(), id, path, labels, ports); err != nil {
						t.Error(err)
					}
				}
				n.nothingLeft(before, "net")
			})
		})
	}
}

// TestRemoveFails runs an IPAM plugin whose DEL fails with an error that contains words that
// containerd takes for success. The reference plugin bridge returns these words, so containerd does
// not repeat DEL, and the address stays leased. bridgeveth must return an error without these
// words, so that containerd repeats DEL.
func TestRemoveFails(t *testing.T) {
	for _, tt := range []struct {
		plugin, path, words string
		believed            bool
	}{
		{"bridge", "/run/netns/cni-1", "store not found", true},
		{"bridge", "", "open store: no such file or directory", true},
		{"bridgeveth", "/run/netns/cni-1", "store not found", false},
		{"bridgeveth", "", "open store: no such file or directory", false},
	} {
		t.Run(tt.plugin+" "+tt.words, func(t *testing.T) {
			setuptest.InHost(t, func() {
				n := newNode(t)
				n.configure("net", func(list, plugin, _ object) {
					list["cniVersion"] = "1.0.0"
					delete(list, "cniVersions")
					plugin["type"], plugin["ipam"] = tt.plugin, object{"type": "failing"}
				})
				n.dirs = append(n.dirs, failing(t, tt.words))
				n.start(1)
				before := setuptest.Dump(t)
				id, c, _ := n.container(1)
				if _, err := n.Setup(t.Context(), id, c.Path); err != nil {
					t.Fatal(err)
				}
				if err := n.Remove(t.Context(), id, tt.path); tt.believed != (err == nil) {
					t.Errorf("Remove: %v", err)
				}
				if tt.believed {
					return
				}
				setuptest.Run(t, "touch", "/run/restored")
				if err := n.Remove(t.Context(), id, tt.path); err != nil {
					t.Errorf("Remove, once the IPAM plugin works: %v", err)
				}
				n.nothingLeft(before, "net")
			})
		})
	}
}

// failing makes an IPAM plugin, and returns the plugin's folder. The plugin's DEL fails with the
// given words as its message, until the file /run/restored exists.
func failing(t *testing.T, words string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	script := `#!/bin/sh
[ $CNI_COMMAND != ADD ] || exec echo '{"cniVersion":"1.0.0","ips":[{"address":"10.86.0.2/16","gateway":"10.86.0.1"}]}'
[ ! -e /run/restored ] || exit 0
echo '{"code":100,"msg":"` + words + `"}'
exit 1
`
	if err := os.WriteFile(filepath.Join(dir, "failing"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}
