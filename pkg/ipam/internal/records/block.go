package records

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/bridgeveth/bridgeveth/internal/shortsort"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
)

// A network whose hosts share a pool of addresses has a bucket next to the bucket "networks":
//
//	blocks/NAME   "heard": time of CLOCK_BOOTTIME in nanoseconds
//	              subnet of a block: revision of etcd
//
// The bucket is not below networks/NAME, because a network in this bucket counts as known: its
// attached containers are not searched any more.
var (
	blocksBucket = []byte("blocks")
	heardKey     = []byte("heard")
)

// Block is a part of a shared pool that this host may give out.
type Block struct {
	Subnet   netip.Prefix
	Revision int64 // the revision of etcd at which the host claimed the block
}

// PutBlocks replaces the blocks of a network, and the time at which etcd was last heard.
func PutBlocks(tx *boltfile.Tx, network string, heard time.Duration, list []Block) error {
	all, err := tx.CreateBucketIfNotExists(blocksBucket)
	if err != nil {
		return err
	}
	if all.Bucket([]byte(network)) != nil {
		if err := all.DeleteBucket([]byte(network)); err != nil {
			return err
		}
	}
	b, err := all.CreateBucket([]byte(network))
	if err == nil {
		err = b.Put(heardKey, strconv.AppendInt(nil, int64(heard), 10))
	}
	for _, block := range list {
		if err == nil {
			err = b.Put([]byte(block.Subnet.String()), strconv.AppendInt(nil, block.Revision, 10))
		}
	}
	return err
}

// Blocks returns the blocks of a network, sorted by address, and the time of CLOCK_BOOTTIME at which
// etcd was last heard. The result known is false if etcd was not heard since the boot.
func Blocks(tx *boltfile.Tx, network string) (heard time.Duration, list []Block, known bool, err error) {
	all := tx.Bucket(blocksBucket)
	if all == nil || all.Bucket([]byte(network)) == nil {
		return 0, nil, false, nil
	}
	err = all.Bucket([]byte(network)).ForEach(func(k, v []byte) error {
		number, err := strconv.ParseInt(string(v), 10, 64)
		if err == nil && string(k) == string(heardKey) {
			heard, known = time.Duration(number), true
			return nil
		}
		var subnet netip.Prefix
		if err == nil {
			subnet, err = netip.ParsePrefix(string(k))
		}
		if err != nil {
			return fmt.Errorf("%w: the block %q = %q of network %q cannot be decoded", boltfile.ErrDamaged, k, v, network)
		}
		list = append(list, Block{subnet, number})
		return nil
	})
	shortsort.Stable(list, func(a, b Block) bool { return a.Subnet.Addr().Less(b.Subnet.Addr()) })
	return heard, list, known, err
}

// DeleteBlock deletes the record of a block.
func DeleteBlock(tx *boltfile.Tx, network string, b Block) error {
	return tx.Bucket(blocksBucket).Bucket([]byte(network)).Delete([]byte(b.Subnet.String()))
}

// Blocks returns the result of the function Blocks for this network.
func (n *Network) Blocks() (heard time.Duration, list []Block, known bool, err error) {
	return Blocks(n.tx, n.Name)
}
