package setup_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

func TestOpenNamespace(t *testing.T) {
	t.Parallel()
	setuptest.EnterHost(t)
	if err := os.WriteFile("/run/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		want error
	}{
		{"/run/none", setup.ErrNoNamespace},
		{"/run/file/none", setup.ErrNoNamespace},
		{"", setup.ErrNoNamespace},
		{"/run/file", setup.ErrNotNamespace},
		{"/run", setup.ErrNotNamespace},
		{"/proc/self/ns/uts", setup.ErrNotNamespace},
		{"/proc/thread-self/ns/net", nil},
	} {
		n, err := setup.OpenNamespace(tt.path)
		if !errors.Is(err, tt.want) {
			t.Errorf("%q: got %v, want %v", tt.path, err, tt.want)
		}
		if err == nil {
			n.Close()
		}
	}
}

// TestNamed checks that a named namespace can be created twice and deleted twice.
func TestNamed(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	var made []*setup.Namespace
	for range 2 {
		n, err := setup.EnsureNamed("c1")
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		made = append(made, n)
	}
	if !made[0].Same(made[1]) || made[0].Same(host.Namespace) {
		t.Error("the two calls did not return one new namespace")
	}
	if !setuptest.Ping(t, made[0], "127.0.0.1") {
		t.Error("lo is down")
	}
	for range 2 {
		if err := setup.DeleteNamed("c1"); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile("/run/netns/c1", nil, 0o600); err != nil { // a process that is killed before the bind mount leaves this file
		t.Fatal(err)
	}
	n, err := setup.EnsureNamed("c1")
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
}

// TestDo checks that Do enters the right namespace when it is called within another Do. The test
// also calls CurrentHost in a container, which returns a Namespace of the container, and then
// returns to the host. Do with that Namespace must enter the container again. It must not assume
// that the thread is still in the container.
func TestDo(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	container, err := setup.EnsureNamed("c1")
	if err != nil {
		t.Fatal(err)
	}
	defer container.Close()
	check := func(what string, want *setup.Namespace) {
		t.Helper()
		var here unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/net", &here); err != nil {
			t.Fatal(err)
		}
		if here.Ino != want.Inode {
			t.Errorf("%s: in another namespace", what)
		}
	}
	in := func(n *setup.Namespace, f func()) {
		t.Helper()
		if err := n.Do(func() error { f(); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	var visited *setup.Host
	in(container, func() {
		check("container", container)
		in(host.Namespace, func() { check("host within container", host.Namespace) })
		in(container, func() { check("container within container", container) })
		check("back in the container", container)
		if visited, err = setup.CurrentHost(); err != nil {
			t.Fatal(err)
		}
		in(visited.Namespace, func() { check("the container by CurrentHost", container) })
	})
	defer visited.Close()
	check("back in the host", host.Namespace)
	in(host.Namespace, func() { check("host", host.Namespace) })
	in(visited.Namespace, func() { check("container by CurrentHost, from the host", container) })
	check("host at the end", host.Namespace)
}

// TestCloseTwice checks that a second Close of a Namespace closes no other files. Between the two
// calls, the test opens files, which get the descriptor numbers of the namespace's closed sockets.
func TestCloseTwice(t *testing.T) {
	t.Parallel()
	setuptest.EnterHost(t)
	n, err := setup.CurrentHost()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := setup.Addresses(n.Namespace, "lo"); err != nil { // this call opens a socket
		t.Fatal(err)
	}
	n.Close()
	var files []*os.File
	for range 8 {
		f, err := os.Open("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	n.Close()
	for _, f := range files {
		if _, err := f.Read(make([]byte, 1)); err != nil {
			t.Errorf("somebody else's file was closed: %v", err)
		}
	}
}
