// The keeper of a shard's Lease: takes it, renews it, and releases it when nothing of the shard runs any more.
// Never starts a run and never exits the process: losing the right is an error, which stops the Manager.

package shard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// How long runs may take to end once their contexts were cancelled. After it the Lease is left to expire.
const cancelTime = 2 * time.Second

// keeper is a Runnable of the Manager. It stops together with the controllers, and returns after their last run.
type keeper struct {
	lease *lease
	guard *guard
	log   logr.Logger
	// As in Options.
	renewDeadline time.Duration
	retryPeriod   time.Duration
	stopTimeout   time.Duration
	observe       func(Event)

	mu        sync.Mutex
	isStarted bool
	isDone    bool
	err       error
}

// Start keeps the Lease until the context ends, then until nothing runs.
func (k *keeper) Start(ctx context.Context) error {
	k.mu.Lock()
	k.isStarted = true
	k.mu.Unlock()
	err := k.keep(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.isDone, k.err = true, err
	return err
}

// result is how Start ended.
func (k *keeper) result() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.isStarted && !k.isDone {
		return fmt.Errorf("the shard's Lease %s was not released: %d runs and writes are under way", k.lease.name, k.guard.underWay())
	}
	return k.err
}

func (k *keeper) keep(ctx context.Context) error {
	if !k.acquire(ctx) {
		k.guard.end(ErrStopped)
		return nil
	}
	k.observe(Event{Type: Started})
	err := k.hold(ctx)
	switch {
	case isLost(err):
		k.guard.end(err)
		k.observe(Event{Type: Lost})
	case err != nil:
		k.guard.end(err)
	default:
		k.observe(Event{Type: Stopped})
	}
	return err
}

// acquire waits until the Lease is held, and says whether it is: the context may end before.
func (k *keeper) acquire(ctx context.Context) bool {
	lastWait := ""
	for {
		sent, waitsFor, err := k.tryAcquire(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			k.log.Error(err, "The Lease can't be taken yet", "lease", k.lease.name)
		case waitsFor != "" && waitsFor != lastWait:
			k.log.Info("The Lease is somebody else's; waiting until it isn't renewed any more", "lease", k.lease.name, "holder", waitsFor)
		case err == nil && waitsFor == "":
			// A write that took too long grants nothing; the next one may.
			if until := sent + k.renewDeadline; k.guard.now() < until {
				k.guard.grant(until)
				return true
			}
		}
		lastWait = waitsFor
		select {
		case <-ctx.Done():
			return false
		case <-time.After(k.retryPeriod):
		}
	}
}

// tryAcquire isn't cancelled with the context: a Lease that is taken by a write without an answer would be left to expire.
func (k *keeper) tryAcquire(ctx context.Context) (time.Duration, string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.requestTimeout())
	defer cancel()
	return k.lease.acquire(ctx)
}

// hold renews the Lease until it is released, lost, or left to expire.
func (k *keeper) hold(ctx context.Context) error {
	stop := ctx.Done()
	var cancelRuns, giveUp <-chan time.Time
	retry := time.NewTimer(k.retryPeriod)
	defer retry.Stop()
	for {
		select {
		case <-stop:
			stop = nil
			k.guard.stop()
			cancelRuns = time.After(k.stopTimeout)
		case <-k.guard.idle:
			if !k.guard.tryEnd() {
				continue
			}
			return k.release()
		case <-cancelRuns:
			cancelRuns = nil
			k.log.Info("Cancelling what still runs", "running", k.guard.underWay())
			k.guard.cancel(ErrStopped)
			giveUp = time.After(cancelTime)
		case <-giveUp:
			return fmt.Errorf("the shard's Lease %s is left to expire: %d runs and writes didn't end when they were cancelled",
				k.lease.name, k.guard.underWay())
		case <-retry.C:
			if err := k.renew(); err != nil {
				return err
			}
			retry.Reset(min(k.retryPeriod, max(k.guard.left(), 0)))
		}
	}
}

// renew tries to renew the Lease, and returns an ErrLost if the right to work has ended.
func (k *keeper) renew() error {
	left := k.guard.left()
	if left <= 0 {
		return fmt.Errorf("%w: its Lease %s wasn't renewed within %s", ErrLost, k.lease.name, k.renewDeadline)
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(left, k.requestTimeout()))
	defer cancel()
	sent, err := k.lease.renew(ctx)
	switch {
	case isLost(err):
		return err
	case err != nil:
		k.log.Error(err, "The Lease couldn't be renewed; trying again", "lease", k.lease.name, "left", k.guard.left().String())
		return nil
	}
	// Stopped for so long with the answer on its way that the right had ended: it doesn't come back.
	if k.guard.left() <= 0 {
		return fmt.Errorf("%w: its Lease %s was renewed too late", ErrLost, k.lease.name)
	}
	k.guard.grant(sent + k.renewDeadline)
	return nil
}

// release gives the Lease back, unless a write may still be carried out: then the others wait as after a crash.
func (k *keeper) release() error {
	if k.guard.hasUnknownSince(k.lease.duration) {
		return fmt.Errorf("the shard's Lease %s is left to expire: a write ended without an answer of the API server", k.lease.name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), k.renewDeadline)
	defer cancel()
	for {
		err := k.tryRelease(ctx)
		if err == nil || isLost(err) {
			return err
		}
		k.log.Error(err, "The Lease couldn't be released; trying again", "lease", k.lease.name)
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the shard's Lease %s is left to expire: it couldn't be released within %s",
				k.lease.name, k.renewDeadline), err)
		case <-time.After(k.retryPeriod):
		}
	}
}

func (k *keeper) tryRelease(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, k.requestTimeout())
	defer cancel()
	return k.lease.release(ctx)
}

// requestTimeout is for one attempt. Half the deadline leaves room for another one on a new connection.
func (k *keeper) requestTimeout() time.Duration {
	return k.renewDeadline / 2
}
