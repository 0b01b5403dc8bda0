package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// The faults by other programs that write rules. Their texts are in the table of faults.
const (
	firewalldReloaded = "`firewall-cmd --reload`"
	dockerRestarted   = "restart of dockerd"
)

// firewalls are the programs on the host that write rules of their own: firewalld and dockerd.
type firewalls struct {
	missing map[string]string // why a fault cannot be made, by the name of the fault
	bin     string            // folder with dockerd

	mu     sync.Mutex      // only one worker at a time reloads firewalld or restarts dockerd
	failed map[string]bool // faults that have failed; the bool is always true

	docker        func() error // ends dockerd; nil if dockerd does not run
	stopFirewalld func()
	stopBus       func() // ends the D-Bus daemon of firewalld
}

// firewalldRelease is the Debian release of firewalld. From firewalld 2.1 on, firewalld owns its
// table, and the nft of Debian 12 then refuses "nft flush ruleset".
const firewalldRelease = "bookworm"

// newFirewalls finds out which programs can run. A short run starts none of them, because their
// start would take longer than the run. A repeated run starts only those that its steps need.
func (r *run) newFirewalls(short bool) *firewalls {
	f := &firewalls{bin: os.Getenv("DOCKER_BIN"), missing: map[string]string{}, failed: map[string]bool{}, stopFirewalld: func() {}, stopBus: func() {}}
	if harness.MissingFirewalld(firewalldRelease) != "" {
		f.missing[firewalldReloaded] = "firewalld is missing"
	}
	if harness.MissingDocker(f.bin) != "" {
		f.missing[dockerRestarted] = "dockerd is missing"
	}
	for _, fault := range []string{firewalldReloaded, dockerRestarted} {
		if r.kept != nil && !r.needs(fault) {
			f.missing[fault] = "no step needs it"
		}
	}
	if short {
		f.missing[firewalldReloaded], f.missing[dockerRestarted] = "the run is short", "the run is short"
	}
	return f
}

// settle makes dockerd write its rules and end. The rules remain. After a flush, settle therefore
// restores the rules that the host had before the run.
func (f *firewalls) settle(t *testing.T) {
	setuptest.Run(t, "sh", "-ec", dropForward)
	if f.missing[dockerRestarted] != "" {
		return
	}
	if err := f.restartDocker(); err != nil {
		t.Fatal(err)
	}
	f.end(t)
}

// start starts the programs, and end ends them.
func (f *firewalls) start(t *testing.T) {
	if f.missing[firewalldReloaded] == "" {
		f.stopFirewalld, f.stopBus = harness.Firewalld(t, firewalldRelease)
	}
	if f.missing[dockerRestarted] == "" {
		if err := f.restartDocker(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.end(t) })
	}
}

func (f *firewalls) end(t *testing.T) {
	if f.docker != nil {
		if err := f.docker(); err != nil {
			t.Error(err)
		}
		f.docker = nil
	}
	f.stopFirewalld()
	f.stopBus()
}

// restartDocker ends dockerd, if it runs, and starts it.
func (f *firewalls) restartDocker() (err error) {
	if f.docker != nil {
		if err := f.docker(); err != nil {
			return err
		}
	}
	f.docker, err = harness.StartDocker(harness.DockerCommand(f.bin))
	return err
}

// reloadFirewalld makes firewalld write its rules again. firewalld then forgets the zones of the
// bridges.
func (f *firewalls) reloadFirewalld() error {
	out, err := exec.Command("firewall-cmd", "--reload").CombinedOutput()
	if err != nil {
		return fmt.Errorf("firewall-cmd --reload: %w: %s", err, out)
	}
	return nil
}

// again restarts both programs if a reload or a restart has failed. A flush makes them fail if it
// hits them. firewalld then drops all packets, and it may refuse even the next reload. dockerd does
// not run then.
func (f *firewalls) again(t *testing.T) error {
	if len(f.failed) == 0 {
		return nil
	}
	clear(f.failed)
	if f.missing[firewalldReloaded] == "" {
		f.stopFirewalld()
		// After a flush, firewalld ends without the deletion of its tables.
		setuptest.Run(t, "sh", "-c", "nft list tables | grep ' inet firewalld' | while read line; do nft delete $line; done")
		f.stopFirewalld = harness.StartFirewalld(t)
	}
	if f.missing[dockerRestarted] == "" {
		return f.restartDocker()
	}
	return nil
}

// write makes a fault.
func (f *firewalls) write(fault string) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fault == firewalldReloaded {
		err = f.reloadFirewalld()
	} else {
		err = f.restartDocker()
	}
	delete(f.failed, fault)
	if err != nil {
		f.failed[fault] = true
	}
	return err
}

func (w *worker) reloadFirewalld() { w.writeRules(firewalldReloaded) }
func (w *worker) restartDocker()   { w.writeRules(dockerRestarted) }

// writeRules makes a fault by another program, unless the program is missing.
func (w *worker) writeRules(fault string) {
	if w.firewalls.missing[fault] != "" {
		return
	}
	e := entry{at: time.Now(), worker: w.number, action: fault}
	if err := w.firewalls.write(fault); err != nil {
		e.result = err.Error()
	}
	w.log(e)
	w.count("faults", fault)
}
