package shard

import (
	"context"
	"errors"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

func TestTheRightBeginsWithTheLeaseAndEndsAtItsDeadline(t *testing.T) {
	clock := &fakeClock{}
	g := newGuard(clock.read)
	if err := g.enterRun(); !errors.Is(err, ErrNotHeld) {
		t.Fatal(err)
	}
	g.grant(10 * time.Second)
	if err := g.enterRun(); err != nil {
		t.Fatal(err)
	}
	clock.advance(9999 * time.Millisecond)
	if err := g.enterWrite(); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Millisecond)
	for _, enter := range []func() error{g.enterRun, g.enterWrite} {
		if err := enter(); !errors.Is(err, ErrLost) {
			t.Fatal(err)
		}
	}
}

func TestOnceEndedTheRightNeverComesBack(t *testing.T) {
	clock := &fakeClock{}
	g := newGuard(clock.read)
	g.grant(10 * time.Second)
	g.end(ErrLost)
	g.grant(20 * time.Second)
	if err := g.enterWrite(); !errors.Is(err, ErrLost) || !errors.Is(context.Cause(g.work), ErrLost) {
		t.Fatal(err)
	}
}

func TestWhileItStopsWhatRunsMayWriteButNothingNewRuns(t *testing.T) {
	clock := &fakeClock{}
	g := newGuard(clock.read)
	g.grant(10 * time.Second)
	if err := g.enterRun(); err != nil {
		t.Fatal(err)
	}
	g.stop()
	if err := g.enterRun(); !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	if err := g.enterWrite(); err != nil {
		t.Fatal(err)
	}
	g.leave()
	if g.tryEnd() {
		t.Fatal("ended with a run under way")
	}
	g.leave()
	<-g.idle
	if !g.tryEnd() {
		t.Fatal("not ended with nothing under way")
	}
	if err := g.enterWrite(); !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
}

func TestAWriteUnderWayIsCancelledWhenTheRightEnds(t *testing.T) {
	g := newGuard((&fakeClock{}).read)
	g.grant(10 * time.Second)
	err := g.write(t.Context(), func(ctx context.Context) error {
		g.end(ErrLost)
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !errors.Is(err, ErrLost) || g.underWay() != 0 {
		t.Fatal(err)
	}
}

func TestOnlyWritesWithoutAnAnswerHaveAnUnknownOutcome(t *testing.T) {
	clock := &fakeClock{}
	g := newGuard(clock.read)
	g.grant(time.Minute)
	for _, test := range []struct {
		err       error
		isUnknown bool
	}{
		{nil, false},
		{apierrors.NewConflict(leaseResource, "a", errors.New("it changed")), false},
		{apierrors.NewTimeoutError("the API server gave up", 1), true},
		{context.Canceled, true},
	} {
		clock.advance(10 * time.Second)
		if err := g.write(t.Context(), func(context.Context) error { return test.err }); !errors.Is(err, test.err) {
			t.Fatal(err)
		}
		if g.hasUnknownSince(time.Second) != test.isUnknown {
			t.Errorf("%v", test.err)
		}
	}
}

func TestARunOutlivesTheControllersContextButKeepsItsDeadline(t *testing.T) {
	g := newGuard((&fakeClock{}).read)
	outer, cancel := context.WithCancel(t.Context())
	ctx, stop := g.workContext(outer)
	defer stop()
	cancel()
	if ctx.Err() != nil {
		t.Fatal(ctx.Err())
	}
	g.end(ErrLost)
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), ErrLost) {
		t.Fatal(context.Cause(ctx))
	}
	limited, cancelLimited := context.WithTimeout(t.Context(), time.Hour)
	defer cancelLimited()
	ctx, stop = newGuard((&fakeClock{}).read).workContext(limited)
	defer stop()
	if _, ok := ctx.Deadline(); !ok {
		t.Fatal("no deadline")
	}
}
