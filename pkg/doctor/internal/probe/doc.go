// Package probe sends packets of its own and observes what becomes of them in several network
// namespaces.
//
//   - Echo (echo.go) is a socket that sends ICMP echo requests.
//   - Watch (watch.go) makes nf_tables report every rule that decides about these packets (nft_trace),
//     and returns Sightings: where the packets and their answers were seen.
//   - SendBursts (counter.go) sends packets, and compares counters of dropped packets that nf_tables
//     does not report.
//
// While Watch runs, nf_tables has additional tables in each namespace. The package contains no code
// about containers, and gives no advice.
package probe
