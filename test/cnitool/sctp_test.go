package cnitool

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// sctpSocket opens an SCTP socket in a namespace.
func sctpSocket(ns *setup.Namespace) (fd int, err error) {
	err = ns.Do(func() error {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP); err != nil {
			return err
		}
		wait := unix.NsecToTimeval(int64(2 * time.Second))
		return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait))
	})
	return fd, err
}

// TestSCTP checks that a host port for SCTP is reachable from outside.
func TestSCTP(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	outside := n.outside(false)
	c := n.containers(1)
	client, err := sctpSocket(outside)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Skip("LISTED SKIP: no SCTP in this kernel; make test-vm has one with it")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(client)
	server, err := sctpSocket(c[0])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(server)
	if err := errors.Join(unix.Bind(server, &unix.SockaddrInet4{Port: 80}), unix.Listen(server, 1)); err != nil {
		t.Fatal(err)
	}
	there := &unix.SockaddrInet4{Port: 8080, Addr: [4]byte{192, 0, 2, 1}}
	on("ADD", 1, single).run(t).ok(t)
	if unix.Connect(client, there) == nil {
		t.Fatal("connected without a host port")
	}
	unix.Close(client)
	on("DEL", 1, single).run(t).ok(t)
	conf := publishing(single, object{"hostPort": 8080, "containerPort": 80, "protocol": "SCTP"})
	on("ADD", 1, conf).run(t).ok(t)
	if client, err = sctpSocket(outside); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(client, there); err != nil {
		t.Fatalf("connect: %v", err)
	}
	accepted, from, err := unix.Accept(server)
	if err != nil {
		t.Fatalf("accept: %v", err)
	}
	defer unix.Close(accepted)
	if a, ok := from.(*unix.SockaddrInet4); !ok || a.Addr != [4]byte{192, 0, 2, 2} {
		t.Errorf("the server sees %+v", from)
	}
	if _, err := unix.Write(accepted, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if got, err := unix.Read(client, b); err != nil || string(b[:got]) != "hello" {
		t.Errorf("the client gets %q, %v", b[:max(got, 0)], err)
	}
	on("DEL", 1, conf).run(t).ok(t)
}
