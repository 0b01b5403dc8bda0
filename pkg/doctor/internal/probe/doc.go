// Package probe sends test packets, and observes in several network namespaces where the packets
// arrive and where they are dropped.
//
//   - Echo (echo.go) is a socket that sends ICMP echo requests.
//   - Watch (watch.go) makes nf_tables report every rule that decides about these packets (nft_trace),
//     and returns Sightings: where the packets and their answers were seen.
//   - SendBursts (counter.go) sends bursts of packets, and returns by how much each burst increased
//     the counters of dropped packets. It reads the counters that nf_tables does not report.
//
// While Watch runs, nf_tables has additional tables in each namespace. The package contains no code
// about containers, and gives no advice.
package probe
