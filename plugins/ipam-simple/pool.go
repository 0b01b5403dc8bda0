package ipamsimple

import (
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// withStock calls attempt, which asks the store for addresses. If hosts share the addresses and the
// blocks of this host do not suffice, withStock starts bridgeveth-pool once, which claims blocks,
// and calls attempt again, for the last time. The store must not be locked by the caller, because
// bridgeveth-pool opens it too.
func (p Plugin) withStock(c *ipamconfig.Config, args *skel.CmdArgs, attempt func(last bool) error) error {
	err := attempt(false)
	if c.Pool == nil || !isDry(err) {
		return err
	}
	addresses := c.Requested
	var outside *ipam.OutsideError
	if errors.As(err, &outside) {
		addresses = outside.Addresses
	}
	claim := p.claim
	if claim == nil {
		claim = plugin.ClaimBlocks
	}
	failed := claim(args.StdinData, addresses...)
	if err = attempt(true); !isDry(err) {
		return err
	}
	if failed == nil {
		failed = errors.New("other containers have taken its addresses meanwhile; try again")
	}
	return &dryError{err, failed}
}

// isDry reports whether another block of the pool, or an answer of etcd, can cure an error.
func isDry(err error) bool {
	return errors.Is(err, ipam.ErrExhausted) || errors.Is(err, ipam.ErrNoBlock) || errors.Is(err, ipam.ErrUnheard)
}

// dryError is the error of a host that has no address left and could claim no block.
type dryError struct{ dry, claim error }

// Error returns a message that says why the host has no address, and why the claim failed.
func (e *dryError) Error() string {
	if errors.Is(e.dry, ipam.ErrExhausted) {
		// "no address is left" would be wrong: other blocks of the pool may have addresses
		return fmt.Sprintf("all addresses in the blocks of this host are leased, and the claim of another block failed: %v", e.claim)
	}
	return fmt.Sprintf("%v, and the claim of a block failed: %v", e.dry, e.claim)
}

// Unwrap returns the error of the claim.
func (e *dryError) Unwrap() error { return e.claim }
