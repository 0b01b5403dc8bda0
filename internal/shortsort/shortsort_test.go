package shortsort

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestStable compares Stable with the function of package slices.
func TestStable(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for n := range 20 {
		var list [][2]int // number to compare, and position
		for i := range n {
			list = append(list, [2]int{rng.IntN(5), i})
		}
		want := slices.Clone(list)
		slices.SortStableFunc(want, func(a, b [2]int) int { return a[0] - b[0] })
		Stable(list, func(a, b [2]int) bool { return a[0] < b[0] })
		if !slices.Equal(list, want) {
			t.Errorf("got %v, want %v", list, want)
		}
	}
}
