package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFigures(t *testing.T) {
	var s sample
	for i := range 100 { // 100 ms down to 1 ms, two at a time
		d := time.Duration(100-i) * time.Millisecond
		s.join(sample{took: []time.Duration{d}, wall: d / 2, cost: cost{3 * time.Millisecond, 400}})
	}
	got := s.figures()
	want := figures{Count: 100, MedianMS: 50, P99MS: 99, CPUMS: 3, Faults: 400, PerSecond: 100 / 2.525}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
}

func TestQuantile(t *testing.T) {
	for name, tc := range map[string]struct {
		sorted []time.Duration
		q      float64
		want   time.Duration
	}{
		"one value":             {[]time.Duration{7}, 0.5, 7},
		"lower of two":          {[]time.Duration{1, 2}, 0.5, 1},
		"few values, 99 in 100": {[]time.Duration{1, 2, 3}, 0.99, 3},
		"zero is the least":     {[]time.Duration{1, 2, 3}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := quantile(tc.sorted, tc.q); got != tc.want {
				t.Errorf("quantile(%v, %v) = %v, want %v", tc.sorted, tc.q, got, tc.want)
			}
		})
	}
}

func TestSystemsLoad(t *testing.T) {
	for i := range systems {
		t.Run(systems[i].key, func(t *testing.T) {
			list, err := systems[i].config(networkName)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := len(list.Plugins), len(systems[i].plugins); got != want {
				t.Errorf("%d plugins, want %d", got, want)
			}
		})
	}
}
