package setup_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

func TestUndo(t *testing.T) {
	var undo setup.Undo
	var order []string
	broken := errors.New("broken")
	for _, step := range []struct {
		what string
		err  error
	}{{"first", nil}, {"second", broken}, {"third", nil}} {
		undo.Push(step.what, func() error { order = append(order, step.what); return step.err })
	}
	err := undo.Run()
	if !errors.Is(err, broken) || err.Error() != "undo second: broken" {
		t.Errorf("got error %v", err)
	}
	if diff := cmp.Diff([]string{"third", "second", "first"}, order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if err := undo.Run(); err != nil || len(order) != 3 {
		t.Errorf("the second Run is not empty: %v, %v", order, err)
	}
}
