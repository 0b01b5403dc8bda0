package setup

import (
	"errors"
	"net/netip"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/forward"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// EnsureTransit makes the FORWARD chains of iptables-nft accept packets that the host forwards to
// these ranges, and the replies to such packets. Kubernetes needs this for a NodePort whose pod is
// on another node: such a packet comes in by the uplink, and leaves by the uplink or by a tunnel,
// so no rule for a bridge matches it. The rules for these ranges replace the rules of the last
// call. EnsureTransit returns the names of the parts that it restored. It never changes the tables
// of iptables-legacy, but returns an error if they deny such packets. DeleteTransit is the inverse.
func (h *Host) EnsureTransit(ranges []netip.Prefix) (restored []string, err error) {
	compare := func() ([]plan.Difference, error) { return forward.MissingTransit(h.Namespace, ranges) }
	missing, err := compare()
	if len(missing) > 0 {
		restored, err = h.repair(compare)
	}
	return restored, errors.Join(err, forward.CheckTransit(h.Namespace, ranges))
}

// DeleteTransit deletes the rules that EnsureTransit has added.
func (h *Host) DeleteTransit() error {
	lock, err := h.Lock(flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return forward.DeleteTransit(h.Namespace)
}
