package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	datagram = 200  // bytes of payload in a UDP packet
	segment  = 1448 // bytes of payload in a TCP packet, with an MTU of 1500
)

// traffic is a kind of packets: their protocol and size.
type traffic struct {
	name   string
	socket int // SOCK_DGRAM or SOCK_STREAM
	packet int // bytes of payload in a packet
	write  int // bytes of one write(2)
	burst  int // writes before the server reads
}

var traffics = []traffic{
	{"UDP, 200 bytes", unix.SOCK_DGRAM, datagram, datagram, 32},
	{"TCP, 1448 bytes", unix.SOCK_STREAM, segment, 16 * segment, 1},
}

// flows are connections from clients to one server. One thread sends and receives all packets, so
// that the time does not depend on a scheduler.
type flows struct {
	traffic
	listener int   // of the server; for UDP, it receives all packets
	clients  []int // file descriptors, like servers
	servers  []int
	last     int // the connection that wrote last
}

// openFlows opens the given number of connections. The clients connect to the address in the
// parameter to. The server listens on pathPort. atClient runs a function in the network namespace
// of the clients, and atServer in that of the server.
func openFlows(t traffic, count int, to string, atClient, atServer func(func() error) error) (f *flows, err error) {
	f = &flows{traffic: t, listener: -1}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	address, err := netip.ParseAddrPort(to)
	if err != nil {
		return nil, fmt.Errorf("address of the server: %w", err)
	}
	if err := atServer(func() error { return f.listen() }); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	err = atClient(func() error {
		for range count {
			if err := f.connect(address); err != nil {
				return fmt.Errorf("connect to %s: %w", to, err)
			}
		}
		return nil
	})
	return f, err
}

// open opens a socket in the network namespace of the calling thread.
func (f *flows) open() (int, error) {
	return unix.Socket(unix.AF_INET, f.socket|unix.SOCK_CLOEXEC, 0)
}

func (f *flows) listen() (err error) {
	if f.listener, err = f.open(); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(f.listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(f.listener, &unix.SockaddrInet4{Port: pathPort}); err != nil {
		return err
	}
	if f.socket == unix.SOCK_STREAM {
		return unix.Listen(f.listener, manyFlows)
	}
	return nil
}

// connect opens a connection. It exchanges a message and an answer twice, because the kernel adds a
// connection to a flowtable only after an answer.
func (f *flows) connect(to netip.AddrPort) error {
	client, err := f.open()
	if err != nil {
		return err
	}
	f.clients = append(f.clients, client)
	wait := unix.NsecToTimeval(int64(5 * time.Second))
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := errors.Join(unix.SetsockoptTimeval(client, unix.SOL_SOCKET, option, &wait), unix.SetsockoptTimeval(f.listener, unix.SOL_SOCKET, option, &wait)); err != nil {
			return err
		}
	}
	if err := unix.Connect(client, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return err
	}
	server := f.listener
	if f.socket == unix.SOCK_STREAM {
		if server, _, err = unix.Accept4(f.listener, unix.SOCK_CLOEXEC); err != nil {
			return err
		}
	}
	f.servers = append(f.servers, server)
	for range 2 {
		if err := exchange(client, server); err != nil {
			return err
		}
	}
	return nil
}

// exchange sends a message from the client to the server, and an answer back.
func exchange(client, server int) error {
	message := []byte("message")
	if _, err := unix.Write(client, message); err != nil {
		return err
	}
	n, from, err := unix.Recvfrom(server, message, 0)
	if err != nil {
		return err
	}
	if from == nil { // a stream has no addresses
		_, err = unix.Write(server, message[:n])
	} else {
		err = unix.Sendto(server, message[:n], 0, from)
	}
	if err != nil {
		return err
	}
	_, err = unix.Read(client, message)
	return err
}

// run sends packets on all connections in turns, for the given time. It returns how many packets
// arrive each second.
func (f *flows) run(d time.Duration) (float64, error) {
	message, buffer := make([]byte, f.write), make([]byte, 4*f.write)
	bytes, began := 0, time.Now()
	for time.Since(began) < d {
		for range f.burst {
			f.last = (f.last + 1) % len(f.clients)
			if _, err := transfer(unix.SYS_SENDTO, f.clients[f.last], message); err != 0 && err != unix.EAGAIN {
				return 0, fmt.Errorf("send: %w", err)
			}
		}
		for {
			n, err := transfer(unix.SYS_RECVFROM, f.servers[f.last], buffer)
			if err == unix.EAGAIN {
				break
			}
			if err != 0 {
				return 0, fmt.Errorf("receive: %w", err)
			}
			bytes += n
		}
	}
	return float64(bytes) / float64(f.packet) / time.Since(began).Seconds(), nil
}

// transfer makes the system call send(2) or recv(2) without waiting. It does not tell Go's
// scheduler about the call, because this would add a tenth to the work for a packet.
func transfer(call uintptr, fd int, b []byte) (int, unix.Errno) {
	n, _, err := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), err
}

// close closes all sockets.
func (f *flows) close() {
	all := append(f.clients, f.listener)
	if f.socket == unix.SOCK_STREAM {
		all = append(all, f.servers...)
	}
	for _, fd := range all {
		_ = unix.Close(fd) // nothing is buffered that anybody needs
	}
}
