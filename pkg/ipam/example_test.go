package ipam_test

import (
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// This example reserves an address for a container. A second request of the container gets the same
// address. Then the address is released.
func Example() {
	dir, err := os.MkdirTemp("", "leases")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	pool, mistakes := ipam.Range{Subnet: netip.MustParsePrefix("10.1.0.0/24")}.Complete()
	if mistakes != nil {
		fmt.Println(mistakes)
		return
	}
	store, err := ipam.Open(dir, time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	web := ipam.Attachment{Network: "net", Container: "web", Interface: "eth0"}
	for range 2 {
		leases, err := store.Reserve(ipam.Request{Attachment: web, Sets: []ipam.Set{{pool}}})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s has %s, gateway %s\n", web.Container, leases[0].Address, leases[0].Gateway)
	}
	if err := store.Release(web); err != nil {
		fmt.Println(err)
		return
	}
	usage, err := store.Usage("net")
	fmt.Printf("%d of %d addresses are leased, %v\n", usage[0].Leased, usage[0].Size, err)
	// Output:
	// web has 10.1.0.2/24, gateway 10.1.0.1
	// web has 10.1.0.2/24, gateway 10.1.0.1
	// 0 of 253 addresses are leased, <nil>
}

// This example has an IPv4 set and an IPv6 set, so the attachment gets an address of each set. The
// request asks for one particular address. The IPv4 range excludes some addresses.
func ExampleStore_Reserve() {
	dir, err := os.MkdirTemp("", "leases")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	store, err := ipam.Open(dir, time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	excluded, err := ipam.ParseInterval("10.1.0.2-10.1.0.9")
	if err != nil {
		fmt.Println(err)
		return
	}
	v4, _ := ipam.Range{Subnet: netip.MustParsePrefix("10.1.0.0/24")}.Complete()
	v6, _ := ipam.Range{Subnet: netip.MustParsePrefix("fd00::/64")}.Complete()
	set, _ := v4.Split([]ipam.Interval{excluded}, nil)
	leases, err := store.Reserve(ipam.Request{
		Attachment: ipam.Attachment{Network: "net", Container: "web", Interface: "eth0"},
		Sets:       []ipam.Set{set, {v6}},
		Addresses:  []netip.Addr{netip.MustParseAddr("fd00::53")},
	})
	for _, l := range leases {
		fmt.Println(l.Address)
	}
	fmt.Println(err)
	// Output:
	// 10.1.0.10/24
	// fd00::53/64
	// <nil>
}
