package hostports

import (
	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
)

// The names of the maps of host ports: one map for host ports on all addresses of the host, and one for host
// ports on a single address. nft(8) prints an element of a map in this form, where PORT is the name of the
// container's bridge port:
//
//	tcp . 8080 comment "PORT bridgeveth/NETWORK/CONTAINER/INTERFACE" : 10.88.0.2 . 80
const (
	AnyAddress = "ports"
	OneAddress = "ports_of_address"
)

// Maps returns the maps of host ports in the table of a family.
func Maps(family int) (maps []nft.Set) {
	address := nftables.TypeIPAddr
	if family == unix.AF_INET6 {
		address = nftables.TypeIP6Addr
	}
	key := []nftables.SetDatatype{nftables.TypeIFName, address, nftables.TypeInetProto, nftables.TypeInetService}
	for i, name := range []string{AnyAddress, OneAddress, portsWaiting} {
		maps = append(maps, nft.Set{
			Name: name, Key: nftables.MustConcatSetType(key[len(key)-2-i:]...), Value: nftables.MustConcatSetType(address, nftables.TypeInetService),
		})
	}
	return maps
}
