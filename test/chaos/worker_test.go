package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Limits of a worker.
const (
	mostContainers = 4           // of one worker
	perRound       = 10          // operations of one worker in one round
	callTimeout    = time.Minute // a plugin that hangs is then ended
	firstPort      = 20000       // the lowest host port
	ports          = 100         // number of host ports; few enough that two containers want the same
)

// worker makes operations, one after the other, with containers of its own.
type worker struct {
	*run
	number     int
	steps      int        // number of steps so far
	random     *rand.Rand // of the present step
	cni        *libcni.CNIConfig
	disturbed  *disturbed
	containers []*container
	serial     int // number of the last container
}

type operation struct {
	weight int
	name   string
	run    func(*worker)
}

// operations are the operations of a worker. weight is the share of an operation in per mille. run
// does nothing if the worker has no container for the operation.
var operations = []operation{
	{340, "ADD", (*worker).add},
	{220, "DEL", (*worker).del},
	{136, "CHECK", (*worker).check},
	{60, "GC", (*worker).gc},
	{60, "STATUS", (*worker).status},
	{40, namespaceDeleted, (*worker).deleteNamespace},
	{20, containerLost, (*worker).lose},
	{30, hostEndDeleted, (*worker).deleteHostEnd},
	{20, ifbDeleted, (*worker).deleteIFB},
	{10, bridgeDeleted, (*worker).deleteBridge},
	{20, iptablesFlushed, (*worker).flushIPTables},
	{20, rulesetFlushed, (*worker).flushRuleset},
	{10, storeDeleted, (*worker).deleteStore},
	{10, diskFilled, (*worker).fillDisk},
	{2, firewalldReloaded, (*worker).reloadFirewalld},
	{2, dockerRestarted, (*worker).restartDocker},
}

// round makes the operations of one round.
func (w *worker) round() {
	// The kernel kills a plugin when the thread that started it ends (see disturbed), so the worker
	// keeps its thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range perRound {
		w.steps++
		s := step{w.number, w.steps}
		if w.kept == nil || w.kept[s] {
			var o operation
			o, w.random = s.choose(w.seed)
			o.run(w)
		}
	}
}

// pick returns a random container of the worker that meets the condition, or nil.
func (w *worker) pick(condition func(*container) bool) *container {
	var fit []*container
	for _, c := range w.containers {
		if condition(c) {
			fit = append(fit, c)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return fit[w.random.IntN(len(fit))]
}

func alive(c *container) bool   { return c.living }
func limited(c *container) bool { return c.living && c.network.limits }
func every(*container) bool     { return true }

// call calls a verb. It records the outcome, and a problem if the call failed although nothing
// disturbed it, unless the regular expression allowed matches the error.
func (w *worker) call(verb string, n *network, c string, allowed *regexp.Regexp, f func(context.Context) (string, error)) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	w.disturbed.choose(w.random)
	began := time.Now()
	result, err := f(ctx)
	disturbance := w.disturbed.did()
	if err != nil {
		result = err.Error()
	}
	w.log(entry{at: began, worker: w.number, action: verb, network: n.name, container: c, disturbance: disturbance, result: result})
	switch {
	case err == nil:
		w.count("calls", verb+": success")
	case disturbance == kill:
		w.count("calls", verb+": killed")
	case disturbance == starve:
		w.count("calls", verb+": out of memory")
	case !w.disturbed.calm && busy.MatchString(result):
		w.count("calls", verb+": waited too long")
	case allowed != nil && allowed.MatchString(result):
		w.count("calls", verb+": refused")
	default:
		w.problem(fmt.Sprintf("%s of network %s failed: %v", verb, n.name, err), c)
	}
	if disturbance != none {
		w.count("faults", string(disturbance))
	}
	return err
}

// refusals match the errors that ADD and STATUS may return during a run: another container has the
// host port, the network that shares the addresses has containers, a fault repeatedly deleted the
// bridge, the disk is full, or firewalld reloads. During a reload, firewalld may not answer, and it
// drops all packets.
var refusals = regexp.MustCompile(`host port .* is taken by|is in use by another network|the bridge was deleted meanwhile|no space left on device|firewalld cannot be asked|firewalld_policy_drop`)

// busy matches the error of a call that has waited too long for a lock. This happens if the workers
// have more processes than the machine can run in time. The calls of the checks have no such excuse,
// so a lock that nobody releases is a problem.
var busy = regexp.MustCompile(`lock is held by another process`)

// add attaches a new container. If the call fails, the runtime calls DEL at some later time.
func (w *worker) add() {
	if len(w.containers) == mostContainers {
		w.del()
		return
	}
	w.addTo(w.networks[w.random.IntN(len(w.networks))])
}

// addTo attaches a new container to a network.
func (w *worker) addTo(n *network) {
	w.serial++
	c := &container{name: fmt.Sprintf("w%d-%d", w.number, w.serial), worker: w, network: n}
	if c.network.limits {
		c.port = firstPort + w.random.IntN(ports)
	}
	var err error
	if c.ns, err = setup.EnsureNamed(c.name); err != nil {
		w.problem(err.Error(), c.name)
		return
	}
	w.containers = append(w.containers, c)
	c.network.adding.RLock()
	defer c.network.adding.RUnlock()
	c.network.know(c.name)
	c.adding = time.Now()
	_ = w.call("ADD", c.network, c.name, refusals, func(ctx context.Context) (string, error) { // call has recorded the error
		result, err := w.cni.AddNetworkList(ctx, c.network.list, c.runtimeConf())
		if err == nil {
			err = c.attached(result)
		}
		return fmt.Sprint(c.addresses, " ", c.bridgePort, " ", c.port), err
	})
}

// del detaches a container of the worker, and deletes its namespace.
func (w *worker) del() {
	if c := w.pick(every); c != nil {
		w.detach(c)
	}
}

// detach calls DEL. If the call fails, the container stays.
func (w *worker) detach(c *container) {
	c.living = false
	err := w.call("DEL", c.network, c.name, nil, func(ctx context.Context) (string, error) {
		return "", w.cni.DelNetworkList(ctx, c.network.list, c.runtimeConf())
	})
	if err == nil {
		w.drop(c)
	}
}

// drop removes a container from the runtime's list, and deletes its namespace.
func (w *worker) drop(c *container) {
	w.containers = slices.DeleteFunc(w.containers, func(other *container) bool { return other == c })
	c.network.forget(c.name)
	if err := c.deleteNamespace(); err != nil {
		w.problem(err.Error(), c.name)
	}
}

// damaged matches the errors of CHECK. Between two repairs, CHECK may report any damage.
var damaged = regexp.MustCompile(``)

// check calls CHECK for a container of the worker.
func (w *worker) check() {
	if c := w.pick(alive); c != nil {
		_ = w.checkNow(c, damaged) // call has recorded the error
	}
}

func (w *worker) checkNow(c *container, allowed *regexp.Regexp) error {
	return w.call("CHECK", c.network, c.name, allowed, func(ctx context.Context) (string, error) {
		return "", w.cni.CheckNetworkList(ctx, c.network.list, c.runtimeConf())
	})
}

// gc calls GC of a random network.
func (w *worker) gc() { w.collect(w.networks[w.random.IntN(len(w.networks))]) }

func (w *worker) collect(n *network) {
	n.adding.Lock()
	defer n.adding.Unlock()
	_ = w.call("GC", n, "", nil, func(ctx context.Context) (string, error) { // call has recorded the error
		return "", w.cni.GCNetworkList(ctx, n.list, &libcni.GCArgs{ValidAttachments: n.valid()})
	})
}

// status calls STATUS of a random network.
func (w *worker) status() {
	n := w.networks[w.random.IntN(len(w.networks))]
	_ = w.call("STATUS", n, "", refusals, func(ctx context.Context) (string, error) { // call has recorded the error
		return "", w.cni.GetStatusNetworkList(ctx, n.list)
	})
}
