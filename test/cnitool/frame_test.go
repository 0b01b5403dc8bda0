package cnitool

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/test/attack"
)

// frameSize is the size of a frame with an Ethernet header, an IPv6 header and the mark, in bytes.
const frameSize = 70

// mark is the end of each frame that the test sends. It distinguishes these frames from other
// frames on the bridge.
var mark = []byte("a mark!!")

// passes sends a frame from one container and reports whether it arrives at another container. The
// parameter beginning has the first bytes of the frame, in hexadecimal.
func passes(t testing.TB, from, to *setup.Namespace, beginning string) bool {
	t.Helper()
	receiver := packetSocket(t, to)
	defer unix.Close(receiver)
	sender := packetSocket(t, from)
	defer unix.Close(sender)
	if _, err := unix.Write(sender, marked(t, beginning)); err != nil {
		t.Fatal(err)
	}
	return receives(t, receiver, time.Second)
}

// marked returns a frame. It begins with the bytes of the parameter beginning, which are in
// hexadecimal, and ends with the test's mark.
func marked(t testing.TB, beginning string) []byte {
	t.Helper()
	head, err := hex.DecodeString(beginning)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(head, make([]byte, max(0, frameSize-len(mark)-len(head))), mark)
}

// receives reports whether a frame with the test's mark (see mark) arrives at a packet socket
// within the given time.
func receives(t testing.TB, receiver int, within time.Duration) bool {
	t.Helper()
	b := make([]byte, 2*frameSize)
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
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

// flood sends a frame repeatedly from one container to another. end stops the sending, and returns
// how many frames were sent and how many arrived.
func flood(t testing.TB, from, to *setup.Namespace, beginning string) (end func() (sent, arrived int)) {
	t.Helper()
	frame := marked(t, beginning)
	receiver, sender := packetSocket(t, to), packetSocket(t, from)
	stop, done := make(chan struct{}), make(chan int)
	// On a busy machine, the goroutine may send its first frame only after the test has called end.
	if _, err := unix.Write(sender, frame); err != nil {
		t.Fatalf("send a frame: %v", err)
	}
	go func() {
		sent := 1
		for {
			select {
			case <-stop:
				done <- sent
				return
			case <-time.After(200 * time.Microsecond):
				if _, err := unix.Write(sender, frame); err == nil {
					sent++
				}
			}
		}
	}()
	return func() (sent, arrived int) {
		close(stop)
		sent = <-done
		for receives(t, receiver, 100*time.Millisecond) {
			arrived++
		}
		unix.Close(receiver)
		unix.Close(sender)
		return sent, arrived
	}
}

// packetSocket opens a packet socket on a container's eth0.
func packetSocket(t testing.TB, c *setup.Namespace) (fd int) {
	t.Helper()
	return attack.PacketSocket(t, c, "eth0")
}
