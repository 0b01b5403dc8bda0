package cnitool

import (
	"encoding/xml"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestTopology checks the drawing of two bridges in each format. One of the bridges has a container
// whose port is down.
func TestTopology(t *testing.T) {
	n := newNode(t, dual)
	c := n.containers(8)
	other := single.with(object{"name": "other", "bridge": "br1", "ipam": object{"type": "ipam-simple", "subnet": "10.89.0.0/24"}})
	on("ADD", 1, publishing(dual, object{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"})).run(t).ok(t)
	n.env = []string{"CNI_ARGS=K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1"}
	n.must("add", c[1])
	for i := 3; i <= 7; i++ {
		on("ADD", i, dual).run(t).ok(t)
	}
	on("ADD", 8, other).run(t).ok(t)
	setuptest.Run(t, "sh", "-c", "ip link set $(ip -o link show master br1 | sed 's/^[0-9]*: //; s/@.*//') down")
	for _, kind := range []string{"tree", "dot", "mermaid", "svg"} {
		got, status := bvctl(t, "topology", "-o", kind)
		if status != 0 {
			t.Fatal(got)
		}
		page := filepath.Join("testdata", "topology."+kind)
		if kind == "svg" {
			page = "../../docs/topology.svg" // docs/inspect.md shows this picture
		}
		golden(t, page, got)
		if kind == "svg" {
			for d := xml.NewDecoder(strings.NewReader(got)); ; {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("SVG: %v", err)
				}
			}
		}
	}
}

// TestTopologyNames checks the drawing of pods whose names are long or contain escape sequences for
// a terminal.
func TestTopologyNames(t *testing.T) {
	t.Parallel()
	n := newNode(t, single)
	long := strings.Repeat("long-", 12)
	n.env = []string{"CNI_ARGS=K8S_POD_NAMESPACE=shop;K8S_POD_NAME=" + long}
	c := n.containers(2)
	n.must("add", c[0])
	n.env = []string{"CNI_ARGS=K8S_POD_NAMESPACE=shop;K8S_POD_NAME=red\x1b[31m\nblue"}
	n.must("add", c[1])
	for _, args := range [][]string{{"inspect"}, {"topology"}, {"topology", "-o", "svg"}, {"topology", "-o", "dot"}, {"doctor"}} {
		got, _ := bvctl(t, args...)
		if !strings.Contains(got, "shop/red\uFFFD[31m\uFFFDblue") || !strings.Contains(got, long) || strings.Contains(got, "\x1b") {
			t.Errorf("%v: %q", args, got)
		}
		if args[len(args)-1] == "svg" && strings.Contains(got, `width="210"`) {
			t.Errorf("boxes are too small: %s", got)
		}
	}
}
