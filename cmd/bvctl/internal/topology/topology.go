// Package topology has the command "bvctl topology".
package topology

import (
	"embed"
	"errors"
	"fmt"
	"html"
	"io"
	"strings"
	"text/template"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/inspect"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// drawings holds the templates of the drawings. The name of a template is a value of --output.
//
//go:embed drawings
var drawings embed.FS

var pictures = []string{"tree", "dot", "mermaid", "svg"}

// New returns "bvctl topology".
func New(inv *inventory.Inventory) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "topology", Short: "Draw bridges and containers", Args: cobra.NoArgs,
		Long: `Draw bridges and the containers on them: as a tree for the terminal, for Graphviz
(dot -Tpng), for Mermaid, or as SVG.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.CheckOutput(output, pictures...); err != nil {
				return err
			}
			ns, err := setup.CurrentHost()
			if err != nil {
				return err
			}
			defer ns.Close()
			bridges, err := topology(inv, ns)
			return errors.Join(err, draw(output, bridges, cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "tree", strings.Join(pictures, ", "))
	cli.CompleteOutput(cmd, pictures...)
	return cmd
}

// drawnBridge is a bridge with its ports.
type drawnBridge struct {
	Name  string
	Lines []string // the bridge's addresses
	Ports []drawnPort
}

// drawnPort is a container's port on a bridge.
type drawnPort struct {
	Name  string
	Well  bool     // the port forwards packets
	State string   // state of the port, if it does not forward packets
	Lines []string // name, addresses and host ports of the container
}

// topology lists the bridges that have ports of containers. The list is valid even if err is not
// nil.
func topology(inv *inventory.Inventory, ns *setup.Host) (bridges []drawnBridge, err error) {
	list, err := inspect.Attachments(inv, ns)
	for _, a := range list { // the list is sorted by bridge
		if len(bridges) == 0 || bridges[len(bridges)-1].Name != a.Bridge {
			b := drawnBridge{Name: a.Bridge}
			addresses, err := setup.Addresses(ns.Namespace, a.Bridge)
			if err != nil {
				cli.PrintError(err) // the bridge was deleted, but its ports still exist
			}
			for _, p := range addresses {
				if !p.Addr().IsLinkLocalUnicast() {
					b.Lines = append(b.Lines, p.String())
				}
			}
			bridges = append(bridges, b)
		}
		b := &bridges[len(bridges)-1]
		name := a.Pod
		if name == "" {
			name = cli.Shorten(a.Container)
		}
		p := drawnPort{Name: a.Port, Well: a.State == inspect.Forwarding, State: a.State, Lines: []string{fmt.Sprintf("%s %s", cli.OrDash(name), a.Interface)}}
		for _, address := range a.Addresses {
			p.Lines = append(p.Lines, address.String())
		}
		for _, port := range a.HostPorts {
			p.Lines = append(p.Lines, "host port "+port)
		}
		b.Ports = append(b.Ports, p)
	}
	return bridges, err
}

// draw writes a drawing. kind is the format of the drawing, as the option --output names it.
func draw(kind string, bridges []drawnBridge, w io.Writer) error {
	t, err := template.New(kind).Funcs(template.FuncMap{
		"quote": func(s string) string {
			return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
		},
		"br":    func(s string) string { return strings.ReplaceAll(html.EscapeString(s), "\n", "<br/>") },
		"html":  html.EscapeString,
		"join":  strings.Join,
		"last":  func(i int, of []drawnPort) bool { return i == len(of)-1 },
		"all":   func(first string, more []string) []string { return append([]string{first}, more...) },
		"place": place,
	}).ParseFS(drawings, "drawings/"+kind)
	if err != nil {
		return err
	}
	return t.ExecuteTemplate(w, kind, bridges)
}

// Sizes in an SVG drawing, in pixels.
const (
	boxWidth, boxGap = 210, 20 // a box with longer text is wider
	boxesInRow       = 5
	bridgeHeight     = 50
	lineHeight       = 16
	letterWidth      = 7
)

// placed holds the positions of all boxes, wires and texts of an SVG drawing.
type placed struct {
	Width, Height       int
	BoxWidth, BoxHeight int
	BoxMiddle           int // where the text beside the wire begins
	Bridges             []placedBridge
}

type placedBridge struct {
	drawnBridge
	Y, Width int
	Boxes    []placedBox
}

type placedBox struct {
	drawnPort
	X, Y  int
	Wire  string // path of the wire to the bridge, in the syntax of SVG
	Texts []placedText
}

type placedText struct {
	Y    int
	Text string
}

// place computes the positions for an SVG drawing. It puts the containers below their bridges, five
// in each row (boxesInRow). The wires to later rows pass between the boxes of earlier rows.
func place(bridges []drawnBridge) placed {
	lines, width := 0, boxWidth
	for _, b := range bridges {
		for _, port := range b.Ports {
			lines = max(lines, len(port.Lines))
			for _, line := range port.Lines {
				width = max(width, utf8.RuneCountInString(line)*letterWidth+boxGap)
			}
		}
	}
	p := placed{
		Width: boxesInRow*(width+boxGap) + boxGap, Height: boxGap,
		BoxWidth: width, BoxHeight: (lines + 1) * lineHeight, BoxMiddle: width/2 + 5,
	}
	for _, b := range bridges {
		drawn := placedBridge{drawnBridge: b, Y: p.Height, Width: p.Width - boxGap/2}
		bottom := p.Height + bridgeHeight
		row := p.BoxHeight + 2*boxGap
		for i, port := range b.Ports {
			box := placedBox{drawnPort: port, X: boxGap + i%boxesInRow*(width+boxGap), Y: bottom + 2*boxGap + i/boxesInRow*row}
			middle := box.X + width/2
			box.Wire = fmt.Sprintf("M%d %d V%d", middle, bottom, box.Y)
			if i >= boxesInRow {
				box.Wire = fmt.Sprintf("M%d %d V%d H%d V%d", box.X-boxGap/2, bottom, box.Y-boxGap, middle, box.Y)
			}
			for j, line := range port.Lines {
				box.Texts = append(box.Texts, placedText{box.Y + (j+1)*lineHeight + lineHeight/4, line})
			}
			drawn.Boxes = append(drawn.Boxes, box)
		}
		p.Height = bottom + 2*boxGap + (len(b.Ports)+boxesInRow-1)/boxesInRow*row
		p.Bridges = append(p.Bridges, drawn)
	}
	return p
}
