package records

import (
	"fmt"
	"net/netip"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
)

// addressSize is the length of a stored address, in bytes.
const addressSize = 16

// addressKey returns the 16 bytes by which the store represents an address.
func addressKey(a netip.Addr) []byte {
	key := a.As16()
	return key[:]
}

// keyAddress is the inverse of addressKey.
func keyAddress(key []byte) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(key)
	if !ok || len(key) != addressSize {
		return a, fmt.Errorf("%w: %x is not an address", boltfile.ErrDamaged, key)
	}
	return a.Unmap(), nil
}

// encodeAddresses returns a record with the addresses of leases.
func encodeAddresses(leases []Lease) (record []byte) {
	for _, l := range leases {
		record = append(record, addressKey(l.Address.Addr())...)
	}
	return record
}

// DecodeAddresses returns the addresses in a record of the bucket "attachments" or "names".
func DecodeAddresses(record []byte) (list []netip.Addr, err error) {
	for ; len(record) > 0; record = record[min(len(record), addressSize):] {
		a, err := keyAddress(record[:min(len(record), addressSize)])
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}
