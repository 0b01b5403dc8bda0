package setup

import (
	"errors"
	"net/netip"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/forward"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// EnsureTransit makes the FORWARD chains of iptables-nft accept packets that pass through the host to these
// ranges, and replies from them. Kubernetes needs this for a NodePort whose pod is on another node: such a
// packet comes in and leaves by the uplink, so no rule for a bridge matches it. The rules replace those of
// the last call. EnsureTransit returns what was missing. The error also says if iptables-legacy denies such
// packets: its tables stay as they are. DeleteTransit is the inverse.
func (h *Host) EnsureTransit(ranges []netip.Prefix) (restored []string, err error) {
	compare := func() ([]plan.Difference, error) { return forward.MissingTransit(h.Namespace, ranges) }
	missing, err := compare()
	if len(missing) > 0 {
		restored, err = h.repair(compare)
	}
	return restored, errors.Join(err, forward.CheckTransit(h.Namespace, ranges))
}

// DeleteTransit deletes the rules of EnsureTransit.
func (h *Host) DeleteTransit() error {
	lock, err := h.Lock(flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return forward.DeleteTransit(h.Namespace)
}
