package cnitool

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// allProtocols is ETH_P_ALL in network byte order.
const allProtocols = unix.ETH_P_ALL << 8

// frameSize is that of a frame with an Ethernet and an IPv6 header, and mark behind
// them, in bytes.
const frameSize = 70

// mark tells our frames from what else is on a bridge.
var mark = []byte("a mark!!")

// passes says whether a frame, of which the beginning is given in hexadecimal, comes from
// one container's eth0 to another's.
func passes(t testing.TB, from, to *setup.Namespace, beginning string) bool {
	t.Helper()
	head, err := hex.DecodeString(beginning)
	if err != nil {
		t.Fatal(err)
	}
	frame := append(head, make([]byte, max(0, frameSize-len(mark)-len(head)))...)
	receiver := packetSocket(t, to)
	defer unix.Close(receiver)
	sender := packetSocket(t, from)
	defer unix.Close(sender)
	if _, err := unix.Write(sender, append(frame, mark...)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2*frameSize)
	for deadline := time.Now().Add(100 * time.Millisecond); time.Now().Before(deadline); {
		size, err := unix.Read(receiver, b)
		switch {
		case errors.Is(err, unix.EAGAIN):
			time.Sleep(time.Millisecond)
		case err != nil:
			t.Fatal(err)
		case bytes.HasSuffix(b[:size], mark):
			return true
		}
	}
	return false
}

// packetSocket opens a socket for the frames of a container's eth0.
func packetSocket(t testing.TB, c *setup.Namespace) (fd int) {
	t.Helper()
	err := c.Do(func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, allProtocols); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index, Protocol: allProtocols})
	})
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
