// A shard's own Lease: one attempt each to take, renew and release it, by the contract of the sharders.
// Never sleeps, and never compares what another machine wrote with a clock of ours: a moment in a Lease is good for
// nothing but to differ from the one before.

package shard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The duration of another's Lease that doesn't say it, as the sharders take it.
const unsaidDuration = 15 * time.Second

// Above it the oldest of our own writes of unknown outcome is forgotten, which can only end the right too early.
const maxUnanswered = 1024

// leases is what we need of a namespace's Leases; client-go's LeaseInterface has it.
type leases interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (*coordinationv1.Lease, error)
	Create(ctx context.Context, lease *coordinationv1.Lease, options metav1.CreateOptions) (*coordinationv1.Lease, error)
	Update(ctx context.Context, lease *coordinationv1.Lease, options metav1.UpdateOptions) (*coordinationv1.Lease, error)
}

type lease struct {
	client   leases
	now      func() time.Duration
	name     string
	duration time.Duration
	// What every write sees to in the Lease's labels. All others stay.
	labels map[string]string

	// As it was last read or written by us.
	seen *coordinationv1.Lease
	// The renewTime of our last write that succeeded and of those since whose outcome we don't know. Any other, with our
	// name as the holder, was written by another process of the same name.
	written []metav1.MicroTime
	rival   rival
}

// rival is somebody else's hold on our Lease, as we observed it.
type rival struct {
	lease *coordinationv1.Lease
	since time.Duration
}

// acquire tries to hold the Lease. It returns when the write was sent that did it, or whom it waits for.
func (l *lease) acquire(ctx context.Context) (sent time.Duration, waitsFor string, err error) {
	asked := l.now()
	current, err := l.client.Get(ctx, l.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		l.rival = rival{}
		return l.create(ctx)
	}
	if err != nil {
		return 0, "", err
	}
	holder := holderOf(current)
	if holder != "" && holder != l.name && !l.isSilent(current, asked) {
		return 0, holder, nil
	}
	next := current.DeepCopy()
	if holder != l.name || next.Spec.AcquireTime == nil {
		now := microNow()
		next.Spec.AcquireTime = &now
	}
	if holder != l.name {
		var transitions int32
		if next.Spec.LeaseTransitions != nil {
			transitions = *next.Spec.LeaseTransitions
		}
		transitions++
		next.Spec.LeaseTransitions = &transitions
	}
	sent = l.now()
	return sent, "", l.hold(ctx, next)
}

// isSilent observes another's hold, and says whether it hasn't changed for its own duration. What was asked for later
// than a duration after we first saw it, and is the same, was the same all the time.
func (l *lease) isSilent(current *coordinationv1.Lease, asked time.Duration) bool {
	before := l.rival.lease
	if before == nil || before.UID != current.UID || !apiequality.Semantic.DeepEqual(before.Spec, current.Spec) {
		l.rival = rival{lease: current, since: l.now()}
		return false
	}
	duration := unsaidDuration
	if said := current.Spec.LeaseDurationSeconds; said != nil && *said > 0 {
		duration = time.Duration(*said) * time.Second
	}
	return asked-l.rival.since >= duration
}

func (l *lease) create(ctx context.Context) (time.Duration, string, error) {
	now := microNow()
	var transitions int32
	created := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: l.name},
		Spec:       coordinationv1.LeaseSpec{AcquireTime: &now, LeaseTransitions: &transitions},
	}
	sent := l.now()
	return sent, "", l.hold(ctx, created)
}

// renew extends our hold, and returns when the write was sent that did it. The error is an ErrLost if the Lease isn't ours
// any more; after any other it may be tried again.
func (l *lease) renew(ctx context.Context) (time.Duration, error) {
	sent := l.now()
	err := l.hold(ctx, l.seen.DeepCopy())
	if !apierrors.IsConflict(err) {
		return sent, l.lostIfGone(err)
	}
	// The sharder shows a shard's state in a label, or an answer of ours was lost, or it is somebody else's.
	if err := l.reread(ctx); err != nil {
		return 0, err
	}
	if err := l.checkOurs(); err != nil {
		return 0, err
	}
	sent = l.now()
	return sent, l.lostIfGone(l.hold(ctx, l.seen.DeepCopy()))
}

// release gives the Lease back. It may be tried again after any error that isn't an ErrLost.
func (l *lease) release(ctx context.Context) error {
	next := l.seen.DeepCopy()
	var nobody string
	next.Spec.HolderIdentity = &nobody
	updated, err := l.client.Update(ctx, next, metav1.UpdateOptions{})
	if err == nil {
		l.seen = updated
		return nil
	}
	if !apierrors.IsConflict(err) {
		return l.lostIfGone(err)
	}
	uid := l.seen.UID
	if err := l.reread(ctx); err != nil {
		return err
	}
	if holderOf(l.seen) == "" && l.seen.UID == uid {
		return nil
	}
	if err := l.checkOurs(); err != nil {
		return err
	}
	return err
}

// hold writes the Lease as held by us from now on.
func (l *lease) hold(ctx context.Context, next *coordinationv1.Lease) error {
	now := microNow()
	seconds := int32(l.duration / time.Second)
	next.Spec.HolderIdentity = &l.name
	next.Spec.LeaseDurationSeconds = &seconds
	next.Spec.RenewTime = &now
	if next.Labels == nil {
		next.Labels = make(map[string]string, len(l.labels))
	}
	maps.Copy(next.Labels, l.labels)
	l.written = append(l.written, now)
	var held *coordinationv1.Lease
	var err error
	if next.UID == "" {
		held, err = l.client.Create(ctx, next, metav1.CreateOptions{})
	} else {
		held, err = l.client.Update(ctx, next, metav1.UpdateOptions{})
	}
	switch {
	case err == nil:
		l.seen, l.written = held, []metav1.MicroTime{now}
	case !hasUnknownOutcome(err):
		l.written = l.written[:len(l.written)-1]
	case len(l.written) > maxUnanswered:
		l.written = l.written[1:]
	}
	return err
}

// reread reads the Lease while we hold it.
func (l *lease) reread(ctx context.Context) error {
	current, err := l.client.Get(ctx, l.name, metav1.GetOptions{})
	if err != nil {
		return l.lostIfGone(err)
	}
	if current.UID != l.seen.UID {
		return fmt.Errorf("%w: its Lease %s was deleted and made anew by somebody else", ErrLost, l.name)
	}
	l.seen = current
	return nil
}

func (l *lease) checkOurs() error {
	holder := holderOf(l.seen)
	if holder != l.name {
		return fmt.Errorf("%w: its Lease %s is held by %q", ErrLost, l.name, holder)
	}
	renewed := l.seen.Spec.RenewTime
	if renewed == nil || !slices.ContainsFunc(l.written, func(ours metav1.MicroTime) bool { return ours.Equal(renewed) }) {
		return fmt.Errorf("%w: another process renews its Lease %s: give each shard a name of its own", ErrLost, l.name)
	}
	return nil
}

// lostIfGone tells a Lease that is gone: its shard is dead for the sharder, at once.
func (l *lease) lostIfGone(err error) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: its Lease %s was deleted", ErrLost, l.name)
	}
	return err
}

func holderOf(lease *coordinationv1.Lease) string {
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// microNow is what we write as a moment: at a Lease's precision, so that it is the same when it is read again.
func microNow() metav1.MicroTime {
	return metav1.NewMicroTime(time.Now().Truncate(time.Microsecond))
}

func isLost(err error) bool {
	return errors.Is(err, ErrLost)
}
