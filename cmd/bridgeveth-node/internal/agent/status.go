package agent

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
)

// result is the result of one comparison.
type result struct {
	changes  []string
	reasons  []string // why the node is not ready for pods
	warnings []string // other problems that an administrator must know about
	events   []event  // the reasons and warnings that become Events
	nodes    []cluster.Node
	state    cluster.State
	leases   leases
	at       time.Time
	took     time.Duration

	unavailable bool // the node condition NetworkUnavailable is True, as a cloud controller sets it
}

func (r *result) fail(text string) { r.reasons = append(r.reasons, text) }
func (r *result) warn(text string) { r.warnings = append(r.warnings, text) }

// event is the text of a problem that also becomes an Event on the Node object. The Event has this
// text, and the given value in its field "reason".
type event struct{ reason, text string }

// Values of the field "reason" of Events.
const (
	rangeExhausted = "PodRangeExhausted"
	forwardDenied  = "ForwardDenied"
	foreignAhead   = "ForeignNetworkConfiguration"
)

// tell adds an Event to the result. The caller also passes the same text to fail or warn. Look
// writes the Event only if the previous result did not have this text.
func (r *result) tell(reason, text string) { r.events = append(r.events, event{reason, text}) }

// status holds the results that the HTTP handlers show.
type status struct {
	mutex   sync.Mutex
	last    result
	looks   int
	seconds float64
	changes int
	since   time.Time // time of the first request, if there has been no comparison yet
}

// publish stores a result for the HTTP handlers. It returns the new problems: reasons and warnings
// that the previous result did not have.
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

// stuck is a limit for the age of the last comparison. If the last comparison is older, /healthz
// reports the agent as stuck.
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

// healthz answers whether the agent still compares regularly. Problems of the node or of the
// cluster do not change the answer.
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

// readyz answers whether the node is ready for pods. If the node is not ready, the answer has the
// reasons.
func (s *status) readyz(w http.ResponseWriter, _ *http.Request) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	text, code := s.verdict()
	w.WriteHeader(code)
	fmt.Fprint(w, text)
}

// verdict returns the text and the status code of the answer of /readyz.
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
