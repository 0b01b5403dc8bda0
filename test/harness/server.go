package harness

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Serve starts servers for TCP and UDP on a port in a namespace. They answer with the client's
// address.
func Serve(t testing.TB, ns *setup.Namespace, port int) {
	t.Helper()
	Listen(t, ns, port,
		func(c net.Conn) { fmt.Fprint(c, c.RemoteAddr()) },
		func(_ []byte, from net.Addr) []byte { return []byte(from.String()) })
}

// Listen starts servers for TCP and UDP on a port in a namespace. The function converse talks to a
// TCP client; the function reply returns the answer to a datagram.
func Listen(t testing.TB, ns *setup.Namespace, port int, converse func(net.Conn), reply func(message []byte, from net.Addr) []byte) {
	t.Helper()
	err := ns.Do(func() error {
		l, err := net.Listen("tcp", fmt.Sprint(":", port))
		if err != nil {
			return err
		}
		p, err := net.ListenPacket("udp", fmt.Sprint(":", port))
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close(); p.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					converse(c)
					c.Close()
				}()
			}
		}()
		go func() {
			b := make([]byte, 4096)
			for {
				size, from, err := p.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = p.WriteTo(reply(b[:size], from), from) // a failure is a missing answer at the client
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Patience is how long a client waits for an answer. On a busy host, the kernel may have to
// repeat an ARP request or a TCP SYN. It repeats them after a second.
const Patience = 2500 * time.Millisecond

// Ask sends a request to a server (see Serve). It returns the client's address as the server sees
// it, or "" if no answer comes.
func Ask(t testing.TB, from *setup.Namespace, network, address string, port int) string {
	t.Helper()
	answer := ""
	err := from.Do(func() error {
		c, err := net.DialTimeout(network, net.JoinHostPort(address, fmt.Sprint(port)), Patience)
		if errors.Is(err, unix.EHOSTUNREACH) { // the kernel still has a failed neighbour entry
			c, err = net.DialTimeout(network, net.JoinHostPort(address, fmt.Sprint(port)), Patience)
		}
		if err != nil {
			return nil //nolint:nilerr // no answer
		}
		defer c.Close()
		b := make([]byte, 100)
		if _, err := c.Write([]byte("hello")); err != nil {
			return nil //nolint:nilerr // no answer
		}
		_ = c.SetDeadline(time.Now().Add(Patience)) // fails only on a closed connection
		if n, err := c.Read(b); err == nil {
			answer, _, _ = net.SplitHostPort(string(b[:n]))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}
