package harness

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// MissingFirewalld says why Firewalld cannot run. It returns "" if Firewalld can run.
func MissingFirewalld(release string) string {
	if _, err := os.Stat(filepath.Join(firewalldRoot(release), "usr/sbin/firewalld")); err != nil {
		return "no firewalld in FIREWALLD_ROOT; run make test where Debian's packages can be had"
	}
	return ""
}

func firewalldRoot(release string) string {
	return filepath.Join(os.Getenv("FIREWALLD_ROOT"), release)
}

// Firewalld starts the firewalld of a Debian release in the test's host, with a D-Bus daemon of its
// own. stopFirewalld and stopBus end these programs. Both programs end with the test at the latest.
func Firewalld(t testing.TB, release string) (stopFirewalld, stopBus func()) {
	t.Helper()
	root := firewalldRoot(release)
	for _, dir := range []string{"/run/etc", "/run/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// firewalld reads files in /usr and writes files in /etc, so both folders get an overlay.
	for dir, writable := range map[string]string{"/usr": "", "/etc": ",upperdir=/run/etc,workdir=/run/work"} {
		err := unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+filepath.Join(root, dir)+":"+dir+writable)
		if err != nil {
			t.Fatalf("mount firewalld's %s over that of the host: %v", dir, err)
		}
	}
	stopBus = StartBus(t)
	return StartFirewalld(t), stopBus
}

// StartFirewalld starts firewalld again after stopFirewalld (see Firewalld).
func StartFirewalld(t testing.TB) (stop func()) {
	t.Helper()
	stop = Daemon(t, "/usr/sbin/firewalld", "--nofork", "--nopid")
	Await(t, "firewalld", func() bool { return exec.Command("firewall-cmd", "--state").Run() == nil })
	return stop
}

// StartBus starts a D-Bus daemon in the test's host. The daemon ends with the test, or when stop is
// called.
func StartBus(t testing.TB) (stop func()) {
	t.Helper()
	err := os.Mkdir("/run/dbus", 0o755)
	if err == nil {
		err = os.WriteFile("/run/dbus/test.conf", []byte(BusConfig), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	stop = Daemon(t, "dbus-daemon", "--config-file=/run/dbus/test.conf", "--nofork", "--nopidfile")
	Await(t, "a socket of D-Bus", func() bool { _, err := os.Stat("/run/dbus/system_bus_socket"); return err == nil })
	return stop
}

// Daemon starts a program. The program ends with the test, or when stop is called.
func Daemon(t testing.TB, name string, args ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // no program outlives a test that is killed
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = cmd.Process.Signal(syscall.SIGTERM) // the program may have ended already
		killer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // ended by the signal
		killer.Stop()
		if t.Failed() {
			t.Logf("%s said: %s", name, said.String())
		}
	}
	t.Cleanup(stop)
	return stop
}
