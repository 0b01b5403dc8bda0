package stock

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
)

// churning is a host whose containers come and go.
type churning struct {
	*Stock
	containers []string
	want       int // number of containers
	adds       int
}

// round ends a tenth of the containers, and starts or ends others until their number is as wanted. It
// returns the number of claims.
func (h *churning) round(t *testing.T, random *rand.Rand) (claims int) {
	t.Helper()
	end := func() {
		i := random.IntN(len(h.containers))
		release(t, h.Stock, h.containers[i])
		h.containers[i] = h.containers[len(h.containers)-1]
		h.containers = h.containers[:len(h.containers)-1]
	}
	for range len(h.containers) / 10 {
		end()
	}
	for len(h.containers) > h.want {
		end()
	}
	for len(h.containers) < h.want {
		name := fmt.Sprint(h.adds)
		if _, err := reserve(t, h.Stock, name); err != nil {
			claims++ // as ADD does
			fill(t, h.Stock)
			continue
		}
		h.containers, h.adds = append(h.containers, name), h.adds+1
	}
	return claims
}

// fillAtNeed does what the service does. It leaves out each Fill that would only hear. It returns the
// number of claims and returns.
func (h *churning) fillAtNeed(t *testing.T) (writes int) {
	t.Helper()
	pass(t, h.Stock, 5*time.Minute)
	low, before, _, err := h.Low()
	surplus, wrong := h.surplus()
	if err != nil || wrong != nil {
		t.Fatal(err, wrong)
	}
	if !low && len(surplus) == 0 {
		return 0
	}
	fill(t, h.Stock)
	_, after, _, err := h.Low()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range slices.Concat(before, after) {
		if !slices.Contains(before, b) || !slices.Contains(after, b) {
			writes++
		}
	}
	return writes
}

// TestFragmentation lets the load of many hosts change at random for two simulated hours. The hosts
// may own only a few blocks more than they need.
func TestFragmentation(t *testing.T) {
	const hosts, rounds, perBlock = 16, 24, 16
	c := etcdtest.StartCluster(t, etcdtest.Options{}).Client()
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // a test
	var all []*churning
	for i := range hosts {
		s := stock(t, c, fmt.Sprint("host", i))
		s.Pools = pool("10.1.0.0/18", 28)
		all = append(all, &churning{Stock: s})
	}
	owned, needed, writes, adds := 0, 0, 0, 0
	for round := range rounds {
		for _, h := range all {
			if round == 0 || random.IntN(6) == 0 { // about every half hour
				h.want = random.IntN(6 * perBlock)
			}
			writes += h.round(t, random) + h.fillAtNeed(t)
			if round >= rounds/3 { // after the start
				owned += len(strings.Fields(subnets(t, h.Stock)))
				needed += (len(h.containers)+perBlock-1)/perBlock + h.Spare
			}
		}
	}
	for _, h := range all {
		adds += h.adds
	}
	ratio := float64(owned) / float64(needed)
	t.Logf("the hosts own %d blocks and need %d: %.2f times as many; %d claims and returns for %d containers", owned, needed, ratio, writes, adds)
	if ratio > 1.2 || writes > adds/10 {
		t.Error("these are too many blocks or writes")
	}
}
