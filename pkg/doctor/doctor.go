package doctor

import (
	"errors"
	"net/netip"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/checks"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/probe"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

type (
	// End is one end of a packet's path.
	End = checks.End
	// Report is the path of one packet.
	Report = report.Report
	// Station is a place on a packet's path.
	Station = report.Station
	// State is the state of a station.
	State = report.State
)

// The states of stations. Only a Bad station keeps packets from arriving.
const (
	Good = report.Good
	Bad  = report.Bad
	Note = report.Note
)

// Doctor examines the packet paths of one host. It reads the addresses and the bridge ports only
// once, for the first path.
type Doctor struct {
	Host *setup.Host
	Ends []*End // all containers of the host
	// PodRanges contains the address ranges of the pods on all nodes of a cluster. It is empty if
	// the ranges are unknown.
	PodRanges []netip.Prefix
	// AskAgent sends GET /node to bridgeveth-node, the agent of a Kubernetes node, and returns the
	// answer. The parameter host is the node's IP address. The doctor calls AskAgent only if an
	// agent has added routes to this host. If AskAgent is nil, the doctor asks no agent.
	AskAgent func(host string) (text string, err error)

	snapshot *checks.Snapshot
}

// DeleteLeftovers deletes the trace tables that a killed process has left on the host and in the
// containers. From Linux 5.12 on, the kernel deletes these tables when the process ends. No other
// process may use the package at the same time, because DeleteLeftovers would delete its tables.
func (d *Doctor) DeleteLeftovers() error {
	namespaces := []*setup.Namespace{d.Host.Namespace}
	for _, e := range d.Ends {
		namespaces = append(namespaces, e.Namespace)
	}
	var wrong []error
	for _, ns := range namespaces {
		wrong = append(wrong, ns.Do(probe.DeleteLeftovers))
	}
	return errors.Join(wrong...)
}

// newPath returns the path between two ends, with a report that has no stations.
func (d *Doctor) newPath(a, b *End) (*checks.Path, error) {
	if d.snapshot == nil {
		s, err := checks.TakeSnapshot(d.Host, d.Ends)
		if err != nil {
			return nil, err
		}
		d.snapshot = s
	}
	return &checks.Path{
		Report: &Report{From: a.Name}, Snapshot: d.snapshot, Host: d.Host, A: a, B: b, PodRanges: d.PodRanges, AskAgent: d.AskAgent,
	}, nil
}
