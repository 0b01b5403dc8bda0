package poolsim

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

var (
	errCut    = errors.New("the simulated network has lost the request or its answer")
	errKilled = errors.New("the simulated process was killed") // the value of a panic
)

// link is the way of one host to etcd. While it is cut, it loses requests and answers, and it delivers
// some requests late. It also ends the process that makes a request.
type link struct {
	clientv3.KV
	late     *sync.WaitGroup // of requests on their way
	longest  time.Duration   // delay of a late request
	requests *atomic.Int64
	cut      atomic.Bool
	killIn   atomic.Int32 // number of requests until a process is killed; 0 means never

	mu  sync.Mutex
	rng *rand.Rand
}

// fate is what happens to a request.
type fate int

const (
	delivered fate = iota
	requestLost
	answerLost
	tooLate
	killedBefore
	killedAfter
)

// fate chooses what happens to the next request.
func (l *link) fate() fate {
	l.requests.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.killIn.Load() > 0 && l.killIn.Add(-1) == 0 {
		return killedBefore + fate(l.rng.IntN(2))
	}
	if l.cut.Load() {
		return requestLost + fate(l.rng.IntN(3))
	}
	return delivered
}

// delay returns a random time.
func (l *link) delay() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Duration(l.rng.Int64N(int64(l.longest)))
}

func (l *link) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	switch l.fate() {
	case delivered, tooLate:
		return l.KV.Get(ctx, key, opts...)
	case killedBefore, killedAfter:
		panic(errKilled)
	}
	return nil, errCut
}

func (l *link) Txn(ctx context.Context) clientv3.Txn {
	t := &txn{link: l, fate: l.fate(), cancel: func() {}}
	if t.fate == tooLate {
		ctx, t.cancel = context.WithTimeout(context.WithoutCancel(ctx), l.longest+time.Minute)
	}
	t.Txn = l.KV.Txn(ctx)
	return t
}

// txn is a transaction on a link.
type txn struct {
	clientv3.Txn
	link   *link
	fate   fate
	cancel context.CancelFunc
}

func (t *txn) If(list ...clientv3.Cmp) clientv3.Txn { t.Txn = t.Txn.If(list...); return t }

func (t *txn) Then(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(ops...); return t }

func (t *txn) Else(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(ops...); return t }

func (t *txn) Commit() (*clientv3.TxnResponse, error) {
	switch t.fate {
	case requestLost:
		return nil, errCut
	case killedBefore:
		panic(errKilled)
	case tooLate:
		wait := t.link.delay()
		t.link.late.Go(func() {
			defer t.cancel()
			time.Sleep(wait)
			_, _ = t.Txn.Commit() // nobody waits for the answer
		})
		return nil, errCut
	}
	answer, err := t.Txn.Commit()
	switch t.fate {
	case answerLost:
		return nil, errCut
	case killedAfter:
		panic(errKilled)
	}
	return answer, err
}
