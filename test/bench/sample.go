package main

import (
	"math"
	"slices"
	"time"
)

// sample is what one system did in one case, turn after turn.
type sample struct {
	took []time.Duration // of each operation, as its caller saw it
	wall time.Duration   // of all, operations at a time being counted once
	cpu  time.Duration   // of all, user and system, of the plugins and what they ran
}

// join adds another turn's measurements.
func (s *sample) join(other sample) {
	s.took = append(s.took, other.took...)
	s.wall += other.wall
	s.cpu += other.cpu
}

// figures is a sample in numbers. Times are milliseconds per operation.
type figures struct {
	Count     int     `json:"count"`
	MedianMS  float64 `json:"medianMs"`
	P99MS     float64 `json:"p99Ms"`
	CPUMS     float64 `json:"cpuMs"`
	PerSecond float64 `json:"perSecond"` // operations, at as many at a time as the case says
}

// figures sums the sample up. It must not be empty.
func (s *sample) figures() figures {
	sorted := slices.Sorted(slices.Values(s.took))
	n := float64(len(sorted))
	return figures{
		Count:     len(sorted),
		MedianMS:  milliseconds(quantile(sorted, 0.5)),
		P99MS:     milliseconds(quantile(sorted, 0.99)),
		CPUMS:     milliseconds(s.cpu) / n,
		PerSecond: n / s.wall.Seconds(),
	}
}

// quantile returns the smallest of the sorted values that at least the part q of
// them does not exceed (nearest rank). With fewer than 100 values, q = 0.99 is
// the greatest.
func quantile(sorted []time.Duration, q float64) time.Duration {
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

// milliseconds returns d in milliseconds.
func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
