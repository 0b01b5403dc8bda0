package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// step is an operation of a worker. Each step has a random source of its own (see worker.round), so
// a run without some steps makes the other steps with the same choices.
type step struct {
	Worker, Number int // both from 1 on
}

// failure is what a failing run writes to the file that CHAOS_FAILURE names.
type failure struct {
	Problem string // the first problem
	Steps   []step // the steps of the run
}

// The environment variables of repeated runs. Both name files: a failing run writes one, and the run
// makes only the steps in the other.
const (
	failureVar = "CHAOS_FAILURE"
	stepsVar   = "CHAOS_STEPS"
)

// shrinkTime limits the time that shorten takes.
const shrinkTime = 10 * time.Minute

// shorten repeats a failed run with fewer and fewer steps, and returns the shortest list that has
// shown the same problem. It begins with the last rounds, because a problem seldom needs more. The
// result is nil if no repetition has shown the problem: the problem then depends on the order in
// which the kernel runs the processes, or there was not enough time.
func shorten(t *testing.T, failed failure) []step {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), shrinkTime)
	defer cancel()
	repeats := func(steps []step) bool {
		found, err := repeat(ctx, t.TempDir(), steps)
		return err == nil && kind(found.Problem) == kind(failed.Problem)
	}
	last := 0
	for _, s := range failed.Steps {
		last = max(last, s.Number)
	}
	for rounds := 1; ctx.Err() == nil; rounds *= 4 {
		first := last - rounds*perRound
		some := slices.DeleteFunc(slices.Clone(failed.Steps), func(s step) bool { return s.Number <= first })
		if repeats(some) {
			return minimize(some, func(steps []step) bool { return ctx.Err() == nil && repeats(steps) })
		}
		if first <= 0 {
			break
		}
	}
	return nil
}

// minimize removes parts of the list as long as the function fails still returns true for the rest:
// first halves, then quarters, and so on (the algorithm ddmin, without its tests of the parts alone).
func minimize[T any](list []T, fails func([]T) bool) []T {
	for parts := 2; len(list) > 1; {
		size := (len(list) + parts - 1) / parts
		removed := false
		for at := 0; at < len(list) && !removed; at += size {
			rest := slices.Concat(list[:at], list[min(at+size, len(list)):])
			if removed = fails(rest); removed {
				list, parts = rest, max(parts-1, 2)
			}
		}
		if !removed {
			if size == 1 {
				break
			}
			parts = min(2*parts, len(list))
		}
	}
	return list
}

// repeat makes a run with only the given steps, in a process of its own. The error says why there is
// no failure.
func repeat(ctx context.Context, dir string, steps []step) (found failure, err error) {
	stepsFile, failureFile := filepath.Join(dir, "steps"), filepath.Join(dir, "failure")
	text, err := json.Marshal(steps)
	if err == nil {
		err = os.WriteFile(stepsFile, text, 0o600)
	}
	if err != nil {
		return found, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run", "^TestChaos$")
	cmd.Env = append(os.Environ(), stepsVar+"="+stepsFile, failureVar+"="+failureFile)
	if err := cmd.Run(); err == nil {
		return found, errors.New("the run passes")
	}
	if text, err = os.ReadFile(failureFile); err == nil {
		err = json.Unmarshal(text, &found)
	}
	return found, err
}

// particular matches names, numbers and addresses in the text of a problem.
var particular = regexp.MustCompile(`veth\w+|[0-9a-f:.-]*[0-9][0-9a-f:.-]*`)

// kind returns the first line of a problem without names, numbers and addresses. Two problems with
// the same kind count as the same problem.
func kind(problem string) string {
	line, _, _ := strings.Cut(problem, "\n")
	return particular.ReplaceAllString(line, "#")
}

// choose returns the operation of a step, and the random source for the rest of its choices.
func (s step) choose(seed uint64) (o operation, random *rand.Rand) {
	random = rand.New(rand.NewPCG(seed, uint64(s.Worker)<<32|uint64(s.Number)))
	choice := random.IntN(1000)
	for _, o = range operations {
		if choice -= o.weight; choice < 0 {
			break
		}
	}
	return o, random
}

// keep makes the run a repeated one, with the steps in a file. It does nothing if the name of the
// file is empty.
func (r *run) keep(file string) error {
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	var steps []step
	if err == nil {
		err = json.Unmarshal(text, &steps)
	}
	r.kept, r.operations, r.leastTime = map[step]bool{}, 0, 0
	for _, s := range steps {
		r.kept[s] = true
		r.operations = max(r.operations, s.Number*len(r.workers))
	}
	return err
}

// skip leaves out the next round if the run is a repeated one and none of its steps is in the round.
func (r *run) skip() bool {
	if r.kept == nil {
		return false
	}
	for s := range r.kept {
		if made := r.workers[0].steps; s.Number > made && s.Number <= made+perRound {
			return false
		}
	}
	for _, w := range r.workers {
		w.steps += perRound
	}
	return true
}

// needs reports whether one of the steps of a repeated run makes a fault.
func (r *run) needs(fault string) bool {
	for s := range r.kept {
		if o, _ := s.choose(r.seed); o.name == fault {
			return true
		}
	}
	return false
}

// writeFailure writes the first problem and the steps so far to a file. It does nothing if the name
// of the file is empty, or if the run has no problem with a text.
func (r *run) writeFailure(file string) error {
	if file == "" || len(r.problems) == 0 {
		return nil
	}
	failed := failure{Problem: r.problems[0].what}
	for _, w := range r.workers {
		for number := range w.steps {
			if s := (step{w.number, number + 1}); r.kept == nil || r.kept[s] {
				failed.Steps = append(failed.Steps, s)
			}
		}
	}
	slices.SortStableFunc(failed.Steps, func(a, b step) int { return a.Number - b.Number })
	text, err := json.Marshal(failed)
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	return err
}

// explain prints a shortened list of steps that repeats the problem of a failed run.
func explain(t *testing.T, seed uint64, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		return // the run has failed without a problem that a repetition could show
	}
	var failed failure
	if err := json.Unmarshal(text, &failed); err != nil {
		t.Fatal(err)
	}
	steps := shorten(t, failed)
	if steps == nil {
		t.Logf("no shortened list of steps: the last of the %d steps have not repeated the problem within %v; it may depend on the order in which the kernel runs the processes", len(failed.Steps), shrinkTime)
		return
	}
	var lines strings.Builder
	for _, s := range steps {
		o, _ := s.choose(seed)
		fmt.Fprintf(&lines, "  step %d of worker %d: %s\n", s.Number, s.Worker, o.name)
	}
	t.Logf("%d of the %d steps have repeated the problem:\n%s", len(steps), len(failed.Steps), lines.String())
}

// TestMinimize checks that minimize finds the two numbers that let a check fail.
func TestMinimize(t *testing.T) {
	var list []int
	for i := range 100 {
		list = append(list, i)
	}
	calls := 0
	got := minimize(list, func(some []int) bool {
		calls++
		return slices.Contains(some, 17) && slices.Contains(some, 71)
	})
	if !slices.Equal(got, []int{17, 71}) || calls > 100 {
		t.Errorf("got %v after %d calls, want 17 and 71", got, calls)
	}
	if kind("w1-2 and w13-4 have the address 10.90.0.7") != kind("w21-7 and w3-11 have the address 10.91.0.12") {
		t.Error("two problems that differ only in names and addresses are not of the same kind")
	}
}
