// The right to work: whether a run or a write may begin, and what of them is under way.
// Never reads or writes the Lease: the keeper tells it until when the right lasts.

package shard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

var (
	// ErrNotHeld is the error of a write before the Lease is held for the first time.
	ErrNotHeld = errors.New("the shard's Lease is not held yet")
	// ErrStopped is the error of a run or a write after the shard was told to stop.
	ErrStopped = errors.New("the shard stops")
	// ErrLost is the error of a run or a write after the right to work ended, and of the Manager then.
	ErrLost = errors.New("the shard lost the right to work")
)

type phase int

const (
	waiting  phase = iota // the Lease was never held
	working               // it is held
	stopping              // it is held until what runs has ended
	ended                 // nothing begins any more, for ever
)

// guard is asked before every run and write. Its moments are those of now.
type guard struct {
	now func() time.Duration
	// Cancelled when the right ends, or what runs must end: the runs' own contexts follow it.
	work   context.Context
	cancel context.CancelCauseFunc
	// Closed when the Lease is held for the first time.
	held chan struct{}
	// Signalled when nothing runs any more after stop. Something may have begun since: tryEnd tells.
	idle chan struct{}

	mu    sync.Mutex
	phase phase
	until time.Duration
	err   error
	// Runs and writes under way.
	busy int
	// When the last write ended of which nobody knows whether the API server still carries it out.
	unknown    time.Duration
	hasUnknown bool
}

func newGuard(now func() time.Duration) *guard {
	work, cancel := context.WithCancelCause(context.Background())
	return &guard{now: now, work: work, cancel: cancel, held: make(chan struct{}), idle: make(chan struct{}, 1)}
}

// grant extends the right, which never comes back once it ended.
func (g *guard) grant(until time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase == ended {
		return
	}
	g.until = max(g.until, until)
	if g.phase == waiting {
		g.phase = working
		close(g.held)
	}
}

// left is how long the right lasts if nothing extends it; zero or less if it ended.
func (g *guard) left() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase == waiting || g.phase == ended {
		return 0
	}
	return g.until - g.now()
}

// waitHeld waits for the Lease, and returns an error if the context or the right ended before it.
func (g *guard) waitHeld(ctx context.Context) error {
	select {
	case <-g.held:
		return nil
	case <-g.work.Done():
		return context.Cause(g.work)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enterRun counts a run of the user's function, or says why it can't begin.
func (g *guard) enterRun() error {
	return g.enter(true)
}

// enterWrite counts a write, or says why it can't begin. What runs may still write while the shard stops.
func (g *guard) enterWrite() error {
	return g.enter(false)
}

func (g *guard) enter(isRun bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.phase == waiting:
		return ErrNotHeld
	case g.phase == ended:
		return g.err
	case g.now() >= g.until:
		return fmt.Errorf("%w: its Lease wasn't renewed in time", ErrLost)
	case g.phase == stopping && (isRun || g.work.Err() != nil):
		return ErrStopped
	}
	g.busy++
	return nil
}

func (g *guard) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy--
	g.signalIdle()
}

func (g *guard) signalIdle() {
	if g.phase == stopping && g.busy == 0 {
		select {
		case g.idle <- struct{}{}:
		default:
		}
	}
}

// stop lets no new run begin.
func (g *guard) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase == working {
		g.phase = stopping
		g.signalIdle()
	}
}

// tryEnd ends the right if nothing is under way, and says whether it did.
func (g *guard) tryEnd() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase != stopping || g.busy > 0 {
		return false
	}
	g.finish(ErrStopped)
	return true
}

// end ends the right at once, and cancels what is under way.
func (g *guard) end(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase != ended {
		g.finish(err)
	}
}

func (g *guard) finish(err error) {
	g.phase = ended
	g.err = err
	g.cancel(err)
}

// underWay counts the runs and writes under way.
func (g *guard) underWay() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.busy
}

// hasUnknownSince says whether a write ended within the time of which nobody knows whether it is still carried out.
func (g *guard) hasUnknownSince(within time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hasUnknown && g.now()-g.unknown < within
}

// write does a write if the right lasts, and cancels it when the right ends.
func (g *guard) write(ctx context.Context, do func(context.Context) error) error {
	if err := g.enterWrite(); err != nil {
		return err
	}
	defer g.leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(g.work, func() { cancel(context.Cause(g.work)) })()
	err := do(ctx)
	if hasUnknownOutcome(err) {
		g.mu.Lock()
		g.unknown, g.hasUnknown = g.now(), true
		g.mu.Unlock()
	}
	return err
}

// hasUnknownOutcome says whether a write that failed so may still be carried out: the API server didn't answer, or failed
// itself, as when it gave up waiting for its storage.
func hasUnknownOutcome(err error) bool {
	if err == nil {
		return false
	}
	var status apierrors.APIStatus
	return !errors.As(err, &status) || status.Status().Code >= 500
}

// workContext is the context of a run: it has the values and the deadline of the controller's, but doesn't end when the
// Manager is told to stop. It ends with the right, or when the time to stop is over: a request that is cancelled in the
// middle may still be carried out, so that the Lease couldn't be released.
func (g *guard) workContext(ctx context.Context) (context.Context, context.CancelFunc) {
	detached, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(g.work, func() { cancel(context.Cause(g.work)) })
	stop := func() {
		unhook()
		cancel(nil)
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		return detached, stop
	}
	limited, cancelLimited := context.WithDeadline(detached, deadline)
	return limited, func() {
		cancelLimited()
		stop()
	}
}
