package kernel

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Attributes of the table of neighbour entries, and offsets in their structures: linux/neighbour.h.
const (
	tableThreshold = 4      // NDTA_THRESH3
	tableStats     = 7      // NDTA_STATS
	statsFull      = 10 * 8 // offset of ndts_table_fulls in struct ndt_stats
	tableHeader    = 4      // size of struct ndtmsg
)

// NeighbourTable is the state of the kernel's table of neighbour entries of one family. All network
// namespaces share this table.
type NeighbourTable struct {
	Limit   int    // the sysctl gc_thresh3
	Refused uint64 // how many entries the kernel has refused because the table was full
}

// ReadNeighbourTable returns the state of the table of a family (AF_INET, AF_INET6).
func ReadNeighbourTable(ns *setup.Namespace, family int) (t NeighbourTable, err error) {
	err = ns.Do(func() error {
		req := nl.NewNetlinkRequest(unix.RTM_GETNEIGHTBL, unix.NLM_F_DUMP)
		req.AddData(&nl.RtGenMsg{RtGenmsg: unix.RtGenmsg{Family: uint8(family)}})
		tables, err := setup.Dump(func() ([][]byte, error) { return req.Execute(unix.NETLINK_ROUTE, 0) })
		for _, m := range tables {
			attrs, failed := nl.ParseRouteAttrAsMap(m[min(len(m), tableHeader):])
			limit, stats := attrs[tableThreshold].Value, attrs[tableStats].Value
			if failed != nil || len(limit) < 4 || len(stats) < statsFull+8 {
				continue // a message about the parameters of one link
			}
			t = NeighbourTable{Limit: int(binary.NativeEndian.Uint32(limit)), Refused: binary.NativeEndian.Uint64(stats[statsFull:])}
		}
		return err
	})
	return t, err
}
