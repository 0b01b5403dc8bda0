package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"
)

// disturbance is a fault of a plugin process.
type disturbance string

// The disturbances. Their texts are in the table of faults.
const (
	none   disturbance = ""
	kill   disturbance = "SIGKILL of a plugin process"
	stop   disturbance = "SIGSTOP of a plugin process, then SIGCONT"
	starve disturbance = "too little memory for a plugin process (RLIMIT_AS)"
)

// disturbed starts plugin processes for libcni. It kills or stops some of them at a random time.
// The zero value disturbs no process.
type disturbed struct {
	version.PluginDecoder
	calm  bool          // disturb no process
	plan  disturbance   // for the next process
	after time.Duration // time from the start of the process to the signal
	pause time.Duration // time from SIGSTOP to SIGCONT
	limit int           // RLIMIT_AS, in KiB
	done  disturbance   // what has happened since the last call of choose
}

// choose decides by random what happens to the next process. Most processes are not disturbed.
func (d *disturbed) choose(random *rand.Rand) {
	d.plan, d.done = none, none
	if d.calm {
		return
	}
	switch random.IntN(20) {
	case 0, 1:
		d.plan = kill
	case 2, 3:
		d.plan = stop
	case 4:
		d.plan = starve
	}
	// An undisturbed ADD takes 10 to 50 ms while many workers run.
	d.after = time.Duration(random.IntN(30_000)) * time.Microsecond
	d.pause = time.Duration(random.IntN(100)) * time.Millisecond
	d.limit = 640_000 + random.IntN(200_000) // the Go runtime cannot start with the smaller values
}

// did returns the disturbance of the last process. It is none if the process ended earlier.
func (d *disturbed) did() disturbance { return d.done }

// FindInPath implements the interface invoke.Exec.
func (d *disturbed) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

// ExecPlugin implements the interface invoke.Exec.
func (d *disturbed) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	plan := d.plan
	d.plan = none
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	if plan == starve {
		cmd = exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf(`ulimit -v %d && exec "$0"`, d.limit), path)
	}
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, bytes.NewReader(stdin), &stdout, &stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL} // no stopped plugin outlives the run
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err := d.disturb(cmd, plan, ended)
	if err != nil {
		return nil, fmt.Errorf("%w: %s%s", err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// disturb sends the planned signals to a process, and returns the error of the process after it has
// ended. The channel ended receives this error.
func (d *disturbed) disturb(cmd *exec.Cmd, plan disturbance, ended chan error) error {
	if plan == none {
		return <-ended
	}
	if plan == starve {
		err := <-ended
		if err != nil {
			d.done = starve
		}
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(d.after):
	}
	if plan == kill {
		_ = cmd.Process.Kill() // the process may have ended
		err := <-ended
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			d.done = kill
		}
		return err
	}
	if cmd.Process.Signal(unix.SIGSTOP) == nil {
		d.done = stop
		time.Sleep(d.pause)
		_ = cmd.Process.Signal(unix.SIGCONT) // the process may have ended
	}
	return <-ended
}

// spoil runs commands that damage the host. A command may fail, because another worker changes the
// same objects. The parameter c names the container that the fault concerns, or is empty.
func (w *worker) spoil(fault, c string, commands ...string) {
	began := time.Now()
	out, err := exec.Command("sh", "-c", strings.Join(commands, "\n")).CombinedOutput()
	w.log(entry{at: began, worker: w.number, action: fault, container: c, result: string(out)})
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		w.problem(err.Error(), c)
	}
	w.count("faults", fault)
}

// The faults. Their texts are in the table of faults.
const (
	namespaceDeleted = "network namespace of a container deleted before DEL"
	containerLost    = "network namespace deleted, and no DEL follows"
	hostEndDeleted   = "host end of a veth pair deleted"
	ifbDeleted       = "IFB of a bandwidth limit deleted"
	bridgeDeleted    = "bridge deleted"
	iptablesFlushed  = "`iptables -F` and `iptables -X`"
	rulesetFlushed   = "`nft flush ruleset`"
	storeDeleted     = "file of the leases deleted"
	diskFilled       = "full disk in the folder of the leases"
)

// deleteNamespace deletes the network namespace of a container. DEL follows at some later time.
func (w *worker) deleteNamespace() {
	if c := w.pick(alive); c != nil {
		w.spoil(namespaceDeleted, c.name)
		if err := c.deleteNamespace(); err != nil {
			w.problem(err.Error(), c.name)
		}
	}
}

// lose deletes the network namespace of a container, and removes the container from the runtime's
// list. Only GC can remove the rest of this container.
func (w *worker) lose() {
	if c := w.pick(every); c != nil {
		w.spoil(containerLost, c.name)
		w.drop(c)
	}
}

// deleteHostEnd deletes the bridge port of a container, and so the interface of the container.
func (w *worker) deleteHostEnd() {
	if c := w.pick(alive); c != nil {
		c.living = false
		w.spoil(hostEndDeleted, c.name, "ip link delete "+c.bridgePort)
	}
}

// deleteIFB deletes the link that limits the packets from a container.
func (w *worker) deleteIFB() {
	if c := w.pick(limited); c != nil {
		w.spoil(ifbDeleted, c.name, "ip link delete "+strings.Replace(c.bridgePort, "veth", "ifb", 1))
	}
}

// deleteBridge deletes the bridge of a network. The bridge ports remain.
func (w *worker) deleteBridge() {
	bridges := []string{"pair0", "ports0", "dual0"}
	w.spoil(bridgeDeleted, "", "ip link delete "+bridges[w.random.IntN(len(bridges))])
}

// flushIPTables deletes all rules and all empty chains of the filter table.
func (w *worker) flushIPTables() {
	w.spoil(iptablesFlushed, "", "iptables -w -F; iptables -w -X; ip6tables -w -F; ip6tables -w -X")
}

// flushRuleset deletes all tables of nf_tables, and sets the policy of the FORWARD chains to DROP
// again, as Docker does.
func (w *worker) flushRuleset() { w.spoil(rulesetFlushed, "", "nft flush ruleset", dropForward) }

// leases is the folder of ipam-simple's store.
const leases = "/run/ipam-simple"

// deleteStore deletes the file of the leases while no ADD runs. The next ADD could not find the
// address of a running ADD, because the container does not have the address yet.
func (w *worker) deleteStore() {
	for _, n := range w.networks {
		n.adding.Lock()
		defer n.adding.Unlock()
	}
	w.spoil(storeDeleted, "", "rm -f "+leases+"/leases-*.db")
}

// fillDisk fills the file system of the leases for some milliseconds.
func (w *worker) fillDisk() {
	file := fmt.Sprintf("%s/fill-%d", leases, w.number)
	w.spoil(diskFilled, "", fmt.Sprintf("cat /dev/zero >%s 2>/dev/null; sleep 0.%03d; rm %s", file, w.random.IntN(100), file))
}

// dropForward sets the policy of the FORWARD chains to DROP.
const dropForward = "iptables -w -P FORWARD DROP; ip6tables -w -P FORWARD DROP"
