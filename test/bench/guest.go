package main

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

const containerIf = "eth0"

// guest is a container of the benchmark: its network namespace on a node (a simulated host), and
// the arguments that a runtime passes for it.
type guest struct {
	id     string // container ID; each attachment gets a new one
	netns  string // path in the node's mount namespace
	port   int    // host port, for systems that serve one
	udp    bool   // the host port is for UDP too
	result types.Result
	took   time.Duration // of the last operation
}

// runtimeConf returns the arguments that a runtime passes to libcni for the container. Only plugins
// that declare the capability portMappings get the host port.
func (g *guest) runtimeConf() *libcni.RuntimeConf {
	ports := []map[string]any{{"hostPort": g.port, "containerPort": pathPort, "protocol": "tcp"}}
	if g.udp {
		ports = append(ports, map[string]any{"hostPort": g.port, "containerPort": pathPort, "protocol": "udp"})
	}
	return &libcni.RuntimeConf{
		ContainerID: g.id, NetNS: g.netns, IfName: containerIf,
		CapabilityArgs: map[string]any{"portMappings": ports},
	}
}

// addresses returns the container's IPv4 address and its gateway, from the result of ADD.
func (g *guest) addresses() (own, gateway net.IP, err error) {
	res, err := current.NewResultFromResult(g.result)
	if err != nil {
		return nil, nil, fmt.Errorf("read result: %w", err)
	}
	for _, ip := range res.IPs {
		if ip.Address.IP.To4() != nil && ip.Gateway != nil {
			return ip.Address.IP, ip.Gateway, nil
		}
	}
	return nil, nil, errors.New("read result: no IPv4 address with a gateway")
}

// ping sends echo requests from the calling thread's network namespace. The parameter tries is the
// largest number of requests, and wait is the time to wait for each answer. ping reports whether an
// answer has come.
func ping(to net.IP, tries int, wait time.Duration) (bool, error) {
	conn, err := net.DialIP("ip4:icmp", nil, &net.IPAddr{IP: to})
	if err != nil {
		return false, fmt.Errorf("ping %s: %w", to, err)
	}
	defer conn.Close() // nothing is buffered
	for range tries {
		if _, err := conn.Write(echoRequest[:]); err != nil {
			return false, fmt.Errorf("ping %s: %w", to, err)
		}
		answered, err := awaitEcho(conn, time.Now().Add(wait))
		if answered || err != nil {
			return answered, err
		}
	}
	return false, nil
}

// echoRequest is an ICMP echo request (RFC 792): type 8, code 0, checksum, identifier 0xbe,
// sequence 1. The checksum is the complement of 0x0800+0xbe+1.
var echoRequest = [8]byte{8, 0, 0xf7, 0x40, 0, 0xbe, 0, 1}

// awaitEcho reads packets until the deadline. It reports whether one of them is the answer to
// echoRequest.
func awaitEcho(conn *net.IPConn, deadline time.Time) (bool, error) {
	if err := conn.SetReadDeadline(deadline); err != nil {
		return false, err
	}
	packet := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFromIP(packet)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("await echo: %w", err)
		}
		if n >= 8 && packet[0] == 0 && packet[5] == 0xbe {
			return true, nil
		}
	}
}
