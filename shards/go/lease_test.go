package shard

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

var leaseResource = schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}

// fakeLeases is one Lease of an API server: versions, conflicts, and faults on demand.
type fakeLeases struct {
	mu     sync.Mutex
	stored *coordinationv1.Lease
	serial int
	// Called before each request, without the lock. Its error is the answer, and nothing is done.
	before func(verb string) error
	// Called after each write that was done. Its error is the answer.
	after func(verb string) error
}

func (f *fakeLeases) Get(_ context.Context, name string, _ metav1.GetOptions) (*coordinationv1.Lease, error) {
	if err := f.call("get"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stored == nil {
		return nil, apierrors.NewNotFound(leaseResource, name)
	}
	return f.stored.DeepCopy(), nil
}

func (f *fakeLeases) Create(_ context.Context, lease *coordinationv1.Lease, _ metav1.CreateOptions) (*coordinationv1.Lease, error) {
	if err := f.call("create"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stored != nil {
		return nil, apierrors.NewAlreadyExists(leaseResource, lease.Name)
	}
	created := lease.DeepCopy()
	f.serial++
	created.UID = types.UID("uid-" + strconv.Itoa(f.serial))
	return f.store(created, "create")
}

func (f *fakeLeases) Update(_ context.Context, lease *coordinationv1.Lease, _ metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	if err := f.call("update"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stored == nil || f.stored.UID != lease.UID || f.stored.ResourceVersion != lease.ResourceVersion {
		return nil, apierrors.NewConflict(leaseResource, lease.Name, errors.New("it changed"))
	}
	return f.store(lease.DeepCopy(), "update")
}

func (f *fakeLeases) call(verb string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.before == nil {
		return nil
	}
	return f.before(verb)
}

func (f *fakeLeases) store(lease *coordinationv1.Lease, verb string) (*coordinationv1.Lease, error) {
	f.serial++
	lease.ResourceVersion = strconv.Itoa(f.serial)
	f.stored = lease
	if f.after != nil {
		if err := f.after(verb); err != nil {
			return nil, err
		}
	}
	return lease.DeepCopy(), nil
}

// edit changes the Lease as somebody else.
func (f *fakeLeases) edit(change func(*coordinationv1.Lease)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.serial++
	f.stored = f.stored.DeepCopy()
	f.stored.ResourceVersion = strconv.Itoa(f.serial)
	change(f.stored)
}

func (f *fakeLeases) remove() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stored = nil
}

func (f *fakeLeases) fail(before, after func(verb string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

func (f *fakeLeases) get() coordinationv1.Lease {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *f.stored.DeepCopy()
}

// fakeClock is a boot time that the test owns.
type fakeClock struct {
	mu  sync.Mutex
	now time.Duration
}

func (c *fakeClock) read() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) advance(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += by
}

func newTestLease(leases *fakeLeases, clock *fakeClock) *lease {
	return &lease{
		client: leases, now: clock.read, name: "a", duration: 15 * time.Second,
		labels: map[string]string{Ringmaster.LeaseRing: "r"},
	}
}

// heldLease is a Lease that is held by its shard since the clock's 100 s.
func heldLease(t *testing.T) (*lease, *fakeLeases, *fakeClock) {
	t.Helper()
	leases, clock := &fakeLeases{}, &fakeClock{now: 100 * time.Second}
	l := newTestLease(leases, clock)
	if sent, waitsFor, err := l.acquire(t.Context()); err != nil || waitsFor != "" || sent != 100*time.Second {
		t.Fatalf("acquire: %v %q %v", sent, waitsFor, err)
	}
	return l, leases, clock
}

func setHolder(holder string) func(*coordinationv1.Lease) {
	return func(lease *coordinationv1.Lease) {
		now := metav1.NewMicroTime(time.Now().Add(time.Hour).Truncate(time.Microsecond))
		lease.Spec.HolderIdentity, lease.Spec.RenewTime = &holder, &now
	}
}

func TestALeaseIsCreatedWithEverythingThatSharderNeeds(t *testing.T) {
	_, leases, _ := heldLease(t)
	lease := leases.get()
	spec := lease.Spec
	if lease.Name != "a" || *spec.HolderIdentity != "a" || *spec.LeaseDurationSeconds != 15 || *spec.LeaseTransitions != 0 ||
		spec.AcquireTime == nil || spec.RenewTime == nil || lease.Labels[Ringmaster.LeaseRing] != "r" {
		t.Fatalf("%+v", lease)
	}
}

func TestAReleasedLeaseAndOnesOwnAreTakenAtOnce(t *testing.T) {
	for holder, transitions := range map[string]int32{"": 1, "a": 0} {
		_, leases, clock := heldLease(t)
		leases.edit(setHolder(holder))
		leases.edit(func(lease *coordinationv1.Lease) { lease.Labels["state"] = "dead" })
		restarted := newTestLease(leases, clock)
		if _, waitsFor, err := restarted.acquire(t.Context()); err != nil || waitsFor != "" {
			t.Fatalf("holder %q: %q %v", holder, waitsFor, err)
		}
		lease := leases.get()
		if *lease.Spec.HolderIdentity != "a" || *lease.Spec.LeaseTransitions != transitions || lease.Labels["state"] != "dead" {
			t.Fatalf("holder %q: %+v", holder, lease)
		}
	}
}

func TestATakenLeaseIsWaitedForUntilItHasNotChangedForItsOwnDuration(t *testing.T) {
	_, leases, clock := heldLease(t)
	seconds := int32(30)
	leases.edit(func(lease *coordinationv1.Lease) {
		setHolder("ringmaster-sharder")(lease)
		lease.Spec.LeaseDurationSeconds = &seconds
	})
	returned := newTestLease(leases, clock)
	attempt := func(wantsHeld bool) {
		t.Helper()
		_, waitsFor, err := returned.acquire(t.Context())
		if err != nil || (waitsFor == "") != wantsHeld {
			t.Fatalf("%q %v", waitsFor, err)
		}
	}
	attempt(false)
	clock.advance(29 * time.Second)
	attempt(false)
	// A change begins the wait anew, but not that of a label.
	leases.edit(setHolder("ringmaster-sharder"))
	attempt(false)
	clock.advance(29 * time.Second)
	leases.edit(func(lease *coordinationv1.Lease) { lease.Labels["state"] = "dead" })
	attempt(false)
	clock.advance(time.Second)
	attempt(true)
	if transitions := *leases.get().Spec.LeaseTransitions; transitions != 1 {
		t.Fatal(transitions)
	}
}

func TestATakenLeaseThatIsGoneIsCreated(t *testing.T) {
	_, leases, clock := heldLease(t)
	leases.edit(setHolder("shardlease-controller"))
	returned := newTestLease(leases, clock)
	if _, waitsFor, err := returned.acquire(t.Context()); err != nil || waitsFor != "shardlease-controller" {
		t.Fatalf("%q %v", waitsFor, err)
	}
	leases.remove()
	if _, waitsFor, err := returned.acquire(t.Context()); err != nil || waitsFor != "" {
		t.Fatalf("%q %v", waitsFor, err)
	}
}

func TestARenewalCountsFromWhenItWasSentAndKeepsOthersLabels(t *testing.T) {
	l, leases, clock := heldLease(t)
	leases.edit(func(lease *coordinationv1.Lease) { lease.Labels["state"] = "ready" })
	clock.advance(2 * time.Second)
	leases.fail(func(string) error { clockStep(clock); return nil }, nil)
	sent, err := l.renew(t.Context())
	// The first write met the label's conflict, at 102 s; the read and the second write were sent 1 and 2 s later.
	if err != nil || sent != 104*time.Second {
		t.Fatalf("%v %v", sent, err)
	}
	if lease := leases.get(); lease.Labels["state"] != "ready" || lease.Labels[Ringmaster.LeaseRing] != "r" {
		t.Fatalf("%+v", lease.Labels)
	}
}

func clockStep(clock *fakeClock) { clock.advance(time.Second) }

func TestARenewalWithoutAnAnswerIsReadBackAndNotTakenForAnother(t *testing.T) {
	l, leases, _ := heldLease(t)
	leases.fail(nil, func(string) error { return errors.New("connection reset") })
	if _, err := l.renew(t.Context()); err == nil || isLost(err) {
		t.Fatal(err)
	}
	leases.fail(nil, nil)
	if _, err := l.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(l.written) != 1 {
		t.Fatal(l.written)
	}
}

func TestARenewalOfALeaseThatIsNotOursAnyMoreEndsTheRight(t *testing.T) {
	for name, change := range map[string]func(*fakeLeases){
		"taken":                      func(f *fakeLeases) { f.edit(setHolder("ringmaster-sharder")) },
		"released":                   func(f *fakeLeases) { f.edit(setHolder("")) },
		"renewed by another process": func(f *fakeLeases) { f.edit(setHolder("a")) },
		"deleted":                    func(f *fakeLeases) { f.remove() },
		"made anew":                  func(f *fakeLeases) { f.edit(func(lease *coordinationv1.Lease) { lease.UID = "other" }) },
	} {
		l, leases, _ := heldLease(t)
		change(leases)
		if _, err := l.renew(t.Context()); !isLost(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAReleaseEmptiesTheHolderAndLeavesTheRest(t *testing.T) {
	l, leases, _ := heldLease(t)
	before := leases.get()
	leases.edit(func(lease *coordinationv1.Lease) { lease.Labels["state"] = "ready" })
	if err := l.release(t.Context()); !apierrors.IsConflict(err) {
		t.Fatal(err)
	}
	// Its answer is lost; the next attempt finds it done.
	leases.fail(nil, func(string) error { return errors.New("connection reset") })
	if err := l.release(t.Context()); err == nil {
		t.Fatal("no error")
	}
	if err := l.release(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := leases.get()
	if *after.Spec.HolderIdentity != "" || !after.Spec.RenewTime.Equal(before.Spec.RenewTime) ||
		*after.Spec.LeaseDurationSeconds != 15 || after.Labels["state"] != "ready" {
		t.Fatalf("%+v", after)
	}
}
