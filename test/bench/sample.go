package main

import (
	"math"
	"slices"
	"time"
)

// sample holds the measurements of one system in one scenario.
type sample struct {
	took []time.Duration // per operation, as the caller saw it
	wall time.Duration   // of all operations; parallel operations count once
	cost                 // of the plugins and the programs that they ran, in all
}

// cost is what processes have used.
type cost struct {
	cpu    time.Duration // user and system time
	faults int64         // minor page faults
}

// join adds the measurements of another turn.
func (s *sample) join(other sample) {
	s.took = append(s.took, other.took...)
	s.wall += other.wall
	s.cpu += other.cpu
	s.faults += other.faults
}

// figures are the results that a table shows for a sample. Times are in milliseconds per operation.
type figures struct {
	Count     int     `json:"count"`
	MedianMS  float64 `json:"medianMs"`
	P99MS     float64 `json:"p99Ms"`
	CPUMS     float64 `json:"cpuMs"`
	Faults    float64 `json:"minorFaults"`
	PerSecond float64 `json:"perSecond"` // operations, with the scenario's number in parallel
}

// figures computes the results from the sample, which must not be empty.
func (s *sample) figures() figures {
	sorted := slices.Sorted(slices.Values(s.took))
	n := float64(len(sorted))
	return figures{
		Count:     len(sorted),
		MedianMS:  milliseconds(quantile(sorted, 0.5)),
		P99MS:     milliseconds(quantile(sorted, 0.99)),
		CPUMS:     milliseconds(s.cpu) / n,
		Faults:    float64(s.faults) / n,
		PerSecond: n / s.wall.Seconds(),
	}
}

// quantile returns the quantile q of sorted values (nearest rank): q = 0.5 gives the median. With
// fewer than 100 values, q = 0.99 gives the greatest value.
func quantile(sorted []time.Duration, q float64) time.Duration {
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

// milliseconds returns d in milliseconds.
func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
