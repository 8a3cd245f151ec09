// The runs of a shard: which of them reach the user's function, and the acknowledgement of drains.
// Never decides where an object belongs: its labels say so.

package shard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Drains go before everything else in the queue: another shard waits for them.
const drainPriority = 100

// ControllerManagedBy begins a controller of the main kind, as ctrl.NewControllerManagedBy(mgr).For(main, opts...) does.
// In addition it sees every drain, whatever predicates there are.
func (s *Shard) ControllerManagedBy(mgr ctrl.Manager, main client.Object, opts ...builder.ForOption) *builder.Builder {
	return ctrl.NewControllerManagedBy(mgr).For(main, opts...).WatchesRawSource(s.Drains(mgr.GetCache(), main))
}

// Drains is a source of the objects of the main kind that this shard is asked to let go. A controller that isn't made
// with ControllerManagedBy needs it with WatchesRawSource, which no predicate of the controller touches.
func (s *Shard) Drains(objects cache.Cache, main client.Object) source.Source {
	enqueue := func(obj client.Object, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
		request := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(obj)}
		if prioritized, ok := queue.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
			priority := drainPriority
			prioritized.AddWithOpts(priorityqueue.AddOpts{Priority: &priority}, request)
			return
		}
		queue.Add(request)
	}
	return source.Kind(objects, main, handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			enqueue(e.Object, queue)
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			enqueue(e.ObjectNew, queue)
		},
	}, predicate.NewPredicateFuncs(s.isDraining))
}

// Reconciler wraps the user's function. It is called for objects of the main kind that are this shard's, while the shard
// has the right to work, once at a time for each object over all Reconcilers of the Shard. Its context ends when the
// right ends; when the Manager is told to stop, it ends only after Options.StopTimeout.
func (s *Shard) Reconciler(main client.Object, inner reconcile.Reconciler) reconcile.Reconciler {
	return &reconciler{shard: s, main: main, kind: fmt.Sprintf("%T %s", main, main.GetObjectKind().GroupVersionKind()), inner: inner}
}

type reconciler struct {
	shard *Shard
	main  client.Object
	kind  string
	inner reconcile.Reconciler
}

func (r *reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s := r.shard
	if s.client == nil {
		return reconcile.Result{}, errors.New("the shard isn't part of a Manager: call its Add before the Manager starts")
	}
	if err := s.guard.waitHeld(ctx); err != nil {
		return reconcile.Result{}, ignoreStop(err)
	}
	endTurn, err := s.turns.take(ctx, turn{kind: r.kind, name: request.NamespacedName})
	if err != nil {
		return reconcile.Result{}, ignoreStop(err)
	}
	defer endTurn()
	if err := s.guard.enterRun(); err != nil {
		return reconcile.Result{}, ignoreStop(err)
	}
	defer s.guard.leave()
	ctx, cancel := s.guard.workContext(ctx)
	defer cancel()

	obj, ok := r.main.DeepCopyObject().(client.Object)
	if !ok {
		return reconcile.Result{}, fmt.Errorf("%T: a copy of it is no client.Object", r.main)
	}
	if err := s.client.Get(ctx, request.NamespacedName, obj); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	switch {
	case obj.GetLabels()[s.shardLabel] != s.name:
		return reconcile.Result{}, nil
	case s.isDraining(obj):
		return reconcile.Result{}, s.acknowledge(ctx, obj)
	}
	return r.inner.Reconcile(ctx, request)
}

// ignoreStop drops the error of what doesn't begin because the shard stops: the next owner does it.
func ignoreStop(err error) error {
	if errors.Is(err, ErrStopped) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (s *Shard) isDraining(obj client.Object) bool {
	_, isDraining := obj.GetLabels()[s.drainLabel]
	return isDraining
}

// acknowledge lets an object go. One that has changed or is gone brings an event, which is another run.
func (s *Shard) acknowledge(ctx context.Context, cached client.Object) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": cached.GetResourceVersion(),
		"labels":          map[string]any{s.shardLabel: nil, s.drainLabel: nil},
	}})
	if err != nil {
		return err
	}
	// A copy, since the answer is written to it, and a cache may hand out its own objects.
	obj, ok := cached.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("%T: a copy of it is no client.Object", cached)
	}
	err = s.client.Patch(ctx, obj, client.RawPatch(types.MergePatchType, patch))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("acknowledge the drain: %w", err)
	}
	s.observe(Event{Type: Acknowledged, Object: client.ObjectKeyFromObject(obj), ResourceVersion: obj.GetResourceVersion()})
	return nil
}

// turns lets one run at a time have an object. There are at most as many as the controllers' workers.
type turns struct {
	mu    sync.Mutex
	taken map[turn]chan struct{}
}

type turn struct {
	kind string
	name types.NamespacedName
}

// take waits until nobody has the turn, and returns what gives it back.
func (t *turns) take(ctx context.Context, wanted turn) (func(), error) {
	for {
		t.mu.Lock()
		taken, isTaken := t.taken[wanted]
		if !isTaken {
			ended := make(chan struct{})
			t.taken[wanted] = ended
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.taken, wanted)
				t.mu.Unlock()
				close(ended)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-taken:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
