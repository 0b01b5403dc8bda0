package harness

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// MissingDocker says why the program dockerd in the folder bin cannot run. It returns "" if the
// program can run.
func MissingDocker(bin string) string {
	if _, err := os.Stat(filepath.Join(bin, "dockerd")); err != nil {
		return "no dockerd of this release; run make test where Debian's packages can be had, or make test-distro"
	}
	if uids, err := os.ReadFile("/proc/self/uid_map"); err != nil || len(strings.Fields(string(uids))) != 3 || strings.Fields(string(uids))[2] == "1" {
		return "dockerd needs root outside of a user namespace"
	}
	return ""
}

// DockerCommand returns a command that starts the program dockerd from the folder bin. All files of
// the program are below /run.
func DockerCommand(bin string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, "dockerd"), append([]string{"--data-root", "/run/docker-data", "--exec-root", "/run/docker-exec",
		"--pidfile", "/run/docker.pid", "-H", "unix:///run/docker.sock", "--storage-driver", "vfs"}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	return cmd
}

// dockerWait is the longest time that dockerd may take to start.
const dockerWait = time.Minute

// StartDocker runs a command that starts dockerd, and waits until dockerd serves requests. stop ends
// dockerd and its containerd. If dockerd does not start, the error contains its output.
func StartDocker(cmd *exec.Cmd) (stop func() error, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // the group is dockerd and its containerd
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var failure error
	ended := make(chan struct{})
	go func() { failure = cmd.Wait(); close(ended) }()
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // the remaining processes of the group
	for start := time.Now(); !dockerAnswers(); time.Sleep(50 * time.Millisecond) {
		select {
		case <-ended:
			kill()
			return nil, fmt.Errorf("dockerd: %w\n%s", failure, said.String())
		default:
		}
		if time.Since(start) > dockerWait {
			kill()
			<-ended
			return nil, fmt.Errorf("dockerd is not ready:\n%s", said.String())
		}
	}
	return func() error {
		defer kill()
		_ = cmd.Process.Signal(syscall.SIGTERM) // dockerd may have ended already
		select {
		case <-ended:
			return nil
		case <-time.After(30 * time.Second):
			return errors.New("dockerd does not end")
		}
	}, nil
}

// dockerAnswers reports whether dockerd serves requests. dockerd makes its rules before it serves
// requests.
func dockerAnswers() bool {
	conn, err := net.Dial("unix", "/run/docker.sock")
	if err != nil {
		return false
	}
	defer conn.Close()
	answer := make([]byte, 64)
	_, err = conn.Write([]byte("GET /_ping HTTP/1.0\r\n\r\n"))
	if err == nil {
		_, err = conn.Read(answer)
	}
	return err == nil && bytes.Contains(answer, []byte(" 200 "))
}
