// Package probe sends packets of its own and observes what becomes of them in several network
// namespaces.
//
//   - Echo (echo.go) is a socket that sends ICMP echo requests.
//   - Watch (watch.go) has nf_tables report every rule that decides about these packets (nft_trace),
//     and returns Sightings: where the packets and their answers were seen.
//   - SendBursts (counter.go) sends packets, and compares the counters of what drops packets without
//     a report to nf_tables.
//
// It adds one table to nf_tables in each namespace while it watches. It knows no containers and gives
// no advice.
package probe
