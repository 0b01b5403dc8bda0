package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// traceTable is the name of each table that the doctor adds for a trace.
const traceTable = "bridgeveth-doctor"

// tableOwner is NFT_TABLE_F_OWNER of linux/netfilter/nf_tables.h (Linux 5.12). The kernel deletes a
// table with this flag when the socket that created the table is closed, even if the process is
// killed.
const tableOwner = 0x2

// addTables creates a table for each family of nf_tables. It returns the tables and the connection
// that owns them. deleteTables deletes the tables. From Linux 5.12 on, the kernel also deletes them
// when the process ends.
func addTables(families ...nftables.TableFamily) (*nftables.Conn, []*nftables.Table, error) {
	var tables []*nftables.Table
	for _, family := range families {
		tables = append(tables, &nftables.Table{Name: traceTable, Family: family})
	}
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error { return ownTables(c, tables) }))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // before Linux 5.12
		if c, err = nftables.New(nftables.AsLasting()); err == nil {
			for _, t := range tables {
				c.AddTable(t)
			}
			err = c.Flush()
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("add table %s to nf_tables: %w", traceTable, err)
	}
	return c, tables, nil
}

// deleteTables deletes the trace tables and closes the connection that owns them.
func deleteTables(c *nftables.Conn, tables []*nftables.Table) error {
	for _, t := range tables {
		c.DelTable(t)
	}
	err := c.Flush()
	if err = errors.Join(err, c.CloseLasting()); err != nil {
		return fmt.Errorf("delete table %s: %w", traceTable, err)
	}
	return nil
}

// ownTables creates tables that the kernel deletes when the socket of c is closed. The nftables
// library has no function for such tables.
func ownTables(c *netlink.Conn, tables []*nftables.Table) error {
	message := func(kind int, flags netlink.HeaderFlags, family byte, resource uint16, attributes []byte) netlink.Message {
		head := binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
		return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | flags}, Data: append(head, attributes...)}
	}
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(traceTable + "\x00")},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binary.BigEndian.AppendUint32(nil, tableOwner)},
	})
	if err != nil {
		return err
	}
	batch := []netlink.Message{message(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil)}
	for _, t := range tables {
		batch = append(batch, message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, netlink.Create|netlink.Acknowledge, byte(t.Family), 0, attributes))
	}
	batch = append(batch, message(unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil))
	if _, err := c.SendMessages(batch); err != nil {
		return err
	}
	for range tables { // the first answer may be an error
		if _, err := c.Receive(); err != nil {
			return err
		}
	}
	return nil
}

// DeleteLeftovers deletes the trace tables that a killed process has left in the namespace of the
// calling thread. From Linux 5.12 on, the kernel deletes these tables when the process ends.
func DeleteLeftovers() error {
	if there, err := hasTraceTable(); err != nil || !there {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	tables, err := c.ListTables()
	if err != nil {
		return fmt.Errorf("list tables of nf_tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == traceTable {
			c.DelTable(t)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("delete table %s: %w", traceTable, err)
	}
	return nil
}

// hasTraceTable reports whether the namespace of the calling thread has a trace table. It does not
// use the nftables library, which starts goroutines for each request. These goroutines would need
// other threads, because the calling thread is locked.
func hasTraceTable() (bool, error) {
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_UNSPEC, Version: nl.NFNETLINK_V0})
	tables, err := setup.Dump(func() ([][]byte, error) { return request.Execute(unix.NETLINK_NETFILTER, 0) })
	if err != nil {
		return false, fmt.Errorf("list tables of nf_tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(table []byte) bool { return bytes.Contains(table, []byte(traceTable+"\x00")) }), nil
}
