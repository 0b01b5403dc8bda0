package agent

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
)

// result is what came of one look.
type result struct {
	changes  []string
	reasons  []string // why the node is not ready for pods
	warnings []string // what else an administrator has to know
	events   []event  // those of them that become Events
	nodes    []cluster.Node
	state    cluster.State
	leases   leases
	at       time.Time
	took     time.Duration

	unavailable bool // a cloud controller says so by the node condition NetworkUnavailable
}

func (r *result) fail(text string) { r.reasons = append(r.reasons, text) }
func (r *result) warn(text string) { r.warnings = append(r.warnings, text) }

// event is a reason or a warning that becomes an Event on the Node object.
type event struct{ reason, text string }

// The reasons of Events.
const (
	rangeExhausted = "PodRangeExhausted"
	forwardDenied  = "ForwardDenied"
	foreignAhead   = "ForeignNetworkConfiguration"
)

// tell makes a text that was passed to fail or warn an Event, too.
func (r *result) tell(reason, text string) { r.events = append(r.events, event{reason, text}) }

// status is what is seen of an agent from outside.
type status struct {
	mutex   sync.Mutex
	last    result
	looks   int
	seconds float64
	changes int
	since   time.Time // the first question, if there has been no look yet
}

// publish takes over a result, and returns those of its texts that are new.
func (s *status) publish(r result) (unseen []string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	before := slices.Concat(s.last.reasons, s.last.warnings)
	for _, text := range slices.Concat(r.reasons, r.warnings) {
		if !slices.Contains(before, text) {
			unseen = append(unseen, text)
		}
	}
	s.last = r
	s.looks++
	s.seconds += r.took.Seconds()
	s.changes += len(r.changes)
	return unseen
}

// stuck is how long ago the last look may have been.
const stuck = 3 * idle

// Handler serves /healthz, /readyz, /metrics and /node.
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", a.healthz)
	mux.HandleFunc("/readyz", a.readyz)
	mux.HandleFunc("/metrics", a.metrics)
	mux.HandleFunc("/node", a.node)
	return mux
}

// healthz says whether the agent works, whatever it finds.
func (s *status) healthz(w http.ResponseWriter, _ *http.Request) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.since.IsZero() {
		s.since = time.Now()
	}
	last := s.since
	if s.looks > 0 {
		last = s.last.at
	}
	if ago := time.Since(last); ago > stuck {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "the last comparison ended %s ago; the agent is stuck\n", ago.Round(time.Second))
		return
	}
	fmt.Fprintln(w, "ok")
}

// readyz says whether the node is ready for pods, and why not.
func (s *status) readyz(w http.ResponseWriter, _ *http.Request) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	text, code := s.verdict()
	w.WriteHeader(code)
	fmt.Fprint(w, text)
}

// verdict returns the text of readyz and its status code.
func (s *status) verdict() (text string, code int) {
	for _, r := range s.last.reasons {
		text += "not ready: " + r + "\n"
	}
	if s.looks == 0 {
		text += "not ready: the first comparison has not ended\n"
	}
	code = http.StatusServiceUnavailable
	if text == "" {
		text, code = "ready\n", http.StatusOK
	}
	for _, warning := range s.last.warnings {
		text += "warning: " + warning + "\n"
	}
	return text, code
}
