package shard

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// patience is how long a test waits for what must come. Nothing waits for it to pass.
const patience = 30 * time.Second

// observed keeps what a Shard tells.
type observed struct {
	mu     sync.Mutex
	events []Event
	wake   chan struct{}
}

func (o *observed) add(event Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, event)
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *observed) types() []EventType {
	o.mu.Lock()
	defer o.mu.Unlock()
	var types []EventType
	for _, event := range o.events {
		types = append(types, event.Type)
	}
	return types
}

func (o *observed) wait(t *testing.T, wanted EventType) {
	t.Helper()
	late := time.After(patience)
	for !slices.Contains(o.types(), wanted) {
		select {
		case <-o.wake:
		case <-late:
			t.Fatalf("%s didn't come: %v", wanted, o.types())
		}
	}
}

// newTestShard is a shard with quick renewals, on a fake Lease and, without a clock, on the real boot time.
func newTestShard(leases *fakeLeases, clock *fakeClock) (*Shard, *observed) {
	told := &observed{wake: make(chan struct{}, 1)}
	now := boottime
	if clock != nil {
		now = clock.read
	}
	s := assemble(leases, now, Options{
		Ring: "r", Name: "a", Dialect: Ringmaster, Observe: told.add,
		LeaseDuration: 60 * time.Second, RenewDeadline: 40 * time.Second, RetryPeriod: 5 * time.Millisecond, StopTimeout: patience,
	})
	return s, told
}

// start runs the keeper; the results are how to stop it and how it ended.
func start(t *testing.T, s *Shard) (context.CancelFunc, chan error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.keeper.Start(ctx) }()
	t.Cleanup(cancel)
	return cancel, done
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(patience):
		t.Fatal("it didn't come")
		panic("unreachable")
	}
}

// waitFor waits until a condition on the Lease holds, at the next of the shard's writes.
func waitFor(t *testing.T, leases *fakeLeases, isMet func(coordinationv1.Lease) bool) {
	t.Helper()
	for late := time.Now().Add(patience); !isMet(leases.get()); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("it didn't come: %+v", leases.get())
		}
	}
}

func TestALeaseIsRenewedAndReleasedOnceNothingRuns(t *testing.T) {
	leases := &fakeLeases{}
	s, told := newTestShard(leases, nil)
	stop, done := start(t, s)
	told.wait(t, Started)
	first := leases.get()
	waitFor(t, leases, func(lease coordinationv1.Lease) bool { return !lease.Spec.RenewTime.Equal(first.Spec.RenewTime) })
	if err := s.guard.enterRun(); err != nil {
		t.Fatal(err)
	}
	stop()
	// It goes on renewing while the run does.
	for s.guard.enterRun() == nil {
		s.guard.leave()
	}
	second := leases.get()
	waitFor(t, leases, func(lease coordinationv1.Lease) bool { return !lease.Spec.RenewTime.Equal(second.Spec.RenewTime) })
	if holder := *leases.get().Spec.HolderIdentity; holder != "a" || s.Err() == nil {
		t.Fatalf("released with a run under way: %q", holder)
	}
	s.guard.leave()
	if err := receive(t, done); err != nil || s.Err() != nil {
		t.Fatal(err)
	}
	if holder := *leases.get().Spec.HolderIdentity; holder != "" {
		t.Fatal(holder)
	}
	if types := told.types(); !slices.Equal(types, []EventType{Started, Stopped}) {
		t.Fatal(types)
	}
}

func TestATakenLeaseEndsTheRightAtOnce(t *testing.T) {
	leases := &fakeLeases{}
	s, told := newTestShard(leases, nil)
	_, done := start(t, s)
	told.wait(t, Started)
	leases.edit(setHolder("ringmaster-sharder"))
	if err := receive(t, done); !errors.Is(err, ErrLost) || !errors.Is(s.Err(), ErrLost) {
		t.Fatal(err)
	}
	if err := s.guard.enterWrite(); !errors.Is(err, ErrLost) {
		t.Fatal(err)
	}
	if types := told.types(); !slices.Equal(types, []EventType{Started, Lost}) {
		t.Fatal(types)
	}
}

func TestAProcessThatWasPausedBeyondTheDeadlineDoesNotRenewButEnds(t *testing.T) {
	leases, clock := &fakeLeases{}, &fakeClock{}
	s, told := newTestShard(leases, clock)
	_, done := start(t, s)
	told.wait(t, Started)
	clock.advance(41 * time.Second)
	if err := receive(t, done); !errors.Is(err, ErrLost) {
		t.Fatal(err)
	}
	if holder := *leases.get().Spec.HolderIdentity; holder != "a" {
		t.Fatalf("a lost Lease is not released: %q", holder)
	}
}

func TestRenewalsThatFailAreTriedAgainUntilTheDeadline(t *testing.T) {
	leases, clock := &fakeLeases{}, &fakeClock{}
	s, told := newTestShard(leases, clock)
	_, done := start(t, s)
	told.wait(t, Started)
	asked := make(chan struct{}, 1000)
	leases.fail(func(string) error {
		clock.advance(time.Second)
		asked <- struct{}{}
		return errors.New("connection refused")
	}, nil)
	if err := receive(t, done); !errors.Is(err, ErrLost) {
		t.Fatal(err)
	}
	if attempts := len(asked); attempts < 39 || attempts > 41 {
		t.Fatalf("%d attempts in 40 s", attempts)
	}
}

func TestALeaseIsLeftToExpireWhenAWriteMayStillBeCarriedOut(t *testing.T) {
	leases := &fakeLeases{}
	s, told := newTestShard(leases, nil)
	stop, done := start(t, s)
	told.wait(t, Started)
	if err := s.guard.write(t.Context(), func(context.Context) error { return errors.New("connection reset") }); err == nil {
		t.Fatal("no error")
	}
	stop()
	if err := receive(t, done); err == nil || isLost(err) || s.Err() == nil {
		t.Fatal(err)
	}
	if holder := *leases.get().Spec.HolderIdentity; holder != "a" {
		t.Fatal(holder)
	}
	if err := s.guard.enterWrite(); err == nil {
		t.Fatal("it may still write")
	}
}

func TestRunsAreCancelledAfterTheTimeToStop(t *testing.T) {
	leases := &fakeLeases{}
	s, told := newTestShard(leases, nil)
	s.keeper.stopTimeout = time.Millisecond
	stop, done := start(t, s)
	told.wait(t, Started)
	if err := s.guard.enterRun(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := s.guard.workContext(t.Context())
	defer cancel()
	stop()
	receive(t, ctx.Done())
	if err := s.guard.enterWrite(); !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	s.guard.leave()
	if err := receive(t, done); err != nil {
		t.Fatal(err)
	}
	if holder := *leases.get().Spec.HolderIdentity; holder != "" {
		t.Fatal(holder)
	}
}

func TestAShardThatNeverHeldItsLeaseStopsWithoutAWord(t *testing.T) {
	leases := &fakeLeases{}
	s, told := newTestShard(leases, nil)
	asked := make(chan struct{}, 1)
	leases.fail(func(string) error {
		select {
		case asked <- struct{}{}:
		default:
		}
		return errors.New("connection refused")
	}, nil)
	stop, done := start(t, s)
	receive(t, asked)
	stop()
	if err := receive(t, done); err != nil || s.Err() != nil || len(told.types()) > 0 {
		t.Fatal(err, told.types())
	}
}
