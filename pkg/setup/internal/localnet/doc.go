// Package localnet lets host ports work on 127.0.0.1 of the host. For this, packets from 127.0.0.0/8 must leave
// through the bridge, and their replies must arrive on the bridge. The sysctl route_localnet allows both, but it
// would also let containers reach servers on the host's loopback (CVE-2020-8558). Therefore a filter on the
// bridge, the loopback guard, drops all packets to 127.0.0.0/8 that are not such replies.
//
// The loopback guard is a tc filter and not a rule of nf_tables. Many firewalls begin with "nft flush ruleset",
// which would delete a rule, but would not reset the sysctl. The loopback guard is added before the sysctl is
// set, and deleted after the sysctl is reset.
//
// With br_netfilter, conntrack translates a reply before the bridge delivers the reply to the host. The reply
// then has the destination 127.0.0.1, so the loopback guard would drop the reply. Therefore package ownrules has
// a rule that sets Mark on these replies, and the loopback guard accepts packets with Mark.
//
// The package must not know rules of nf_tables. Start with Missing.
package localnet
