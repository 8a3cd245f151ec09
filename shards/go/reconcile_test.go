package shard

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

const (
	shardKey = "ring.ringmaster.dev/r"
	drainKey = "drain.ring.ringmaster.dev/r"
)

var request = reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "ns", Name: "x"}}

// workingShard has its Lease, and this client for the Manager's.
func workingShard(objects client.Client) (*Shard, *observed, *fakeClock) {
	clock := &fakeClock{}
	s, told := newTestShard(&fakeLeases{}, clock)
	s.guard.grant(40 * time.Second)
	s.client = s.Client(objects)
	return s, told, clock
}

func secret(labels map[string]string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "x", Labels: labels}}
}

func counting(runs *int) reconcile.Reconciler {
	return reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) {
		*runs++
		return reconcile.Result{}, nil
	})
}

func TestOnlyObjectsOfThisShardReachTheUser(t *testing.T) {
	for name, test := range map[string]struct {
		object *corev1.Secret
		runs   int
	}{
		"ours":             {secret(map[string]string{shardKey: "a"}), 1},
		"another's":        {secret(map[string]string{shardKey: "b"}), 0},
		"nobody's":         {secret(nil), 0},
		"another's, drain": {secret(map[string]string{shardKey: "b", drainKey: ""}), 0},
		"gone":             {nil, 0},
	} {
		objects := fake.NewClientBuilder()
		if test.object != nil {
			objects = objects.WithObjects(test.object)
		}
		s, told, _ := workingShard(objects.Build())
		runs := 0
		if _, err := s.Reconciler(&corev1.Secret{}, counting(&runs)).Reconcile(t.Context(), request); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if runs != test.runs || len(told.types()) > 0 {
			t.Errorf("%s: %d runs, %v", name, runs, told.types())
		}
	}
}

func TestADrainIsAcknowledgedInsteadOfARun(t *testing.T) {
	for _, value := range []string{"", "true", "b"} {
		objects := fake.NewClientBuilder().WithObjects(secret(map[string]string{shardKey: "a", drainKey: value, "other": "stays"})).Build()
		s, told, _ := workingShard(objects)
		runs := 0
		if _, err := s.Reconciler(&corev1.Secret{}, counting(&runs)).Reconcile(t.Context(), request); err != nil {
			t.Fatal(err)
		}
		var after corev1.Secret
		if err := objects.Get(t.Context(), request.NamespacedName, &after); err != nil {
			t.Fatal(err)
		}
		if runs != 0 || len(after.Labels) != 1 || after.Labels["other"] != "stays" {
			t.Fatalf("%d runs, %v", runs, after.Labels)
		}
		wanted := Event{Type: Acknowledged, Object: request.NamespacedName, ResourceVersion: after.ResourceVersion}
		if len(told.events) != 1 || told.events[0] != wanted {
			t.Fatal(told.events)
		}
	}
}

func TestAnAcknowledgementOfAnOldObjectIsForgotten(t *testing.T) {
	stale := secret(map[string]string{shardKey: "a", drainKey: ""})
	stale.ResourceVersion = "1"
	for name, stored := range map[string][]client.Object{"changed": {secret(map[string]string{shardKey: "b"})}, "gone": nil} {
		objects := interceptor.NewClient(fake.NewClientBuilder().WithObjects(stored...).Build(), interceptor.Funcs{
			Get: func(_ context.Context, _ client.WithWatch, _ client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
				stale.DeepCopyInto(obj.(*corev1.Secret))
				return nil
			},
		})
		s, told, _ := workingShard(objects)
		if _, err := s.Reconciler(&corev1.Secret{}, counting(new(int))).Reconcile(t.Context(), request); err != nil || len(told.types()) > 0 {
			t.Errorf("%s: %v %v", name, err, told.types())
		}
	}
}

func TestWithoutTheRightNothingRunsAndNothingIsWritten(t *testing.T) {
	objects := fake.NewClientBuilder().WithObjects(secret(map[string]string{shardKey: "a"})).Build()
	s, _, clock := workingShard(objects)
	held := reconcile.Func(func(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
		clock.advance(41 * time.Second)
		changed := secret(map[string]string{shardKey: "a"})
		for _, err := range []error{
			s.client.Create(ctx, changed), s.client.Update(ctx, changed), s.client.Delete(ctx, changed),
			s.client.DeleteAllOf(ctx, changed), s.client.Patch(ctx, changed, client.MergeFrom(changed)),
			s.client.Status().Update(ctx, changed), s.client.Status().Patch(ctx, changed, client.MergeFrom(changed)),
			s.client.SubResource("x").Create(ctx, changed, changed), s.client.SubResource("x").Apply(ctx, nil), s.client.Apply(ctx, nil),
		} {
			if !errors.Is(err, ErrLost) {
				t.Error(err)
			}
		}
		return reconcile.Result{}, nil
	})
	if _, err := s.Reconciler(&corev1.Secret{}, held).Reconcile(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	runs := 0
	if _, err := s.Reconciler(&corev1.Secret{}, counting(&runs)).Reconcile(t.Context(), request); !errors.Is(err, ErrLost) || runs != 0 {
		t.Fatal(err, runs)
	}
}

func TestAnObjectHasOneRunAtATimeOverAllControllers(t *testing.T) {
	objects := fake.NewClientBuilder().WithObjects(secret(map[string]string{shardKey: "a"})).Build()
	s, _, _ := workingShard(objects)
	var mu sync.Mutex
	running, most := 0, 0
	inner := reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		mu.Lock()
		running--
		mu.Unlock()
		return reconcile.Result{}, nil
	})
	var group sync.WaitGroup
	for range 8 {
		wrapped := s.Reconciler(&corev1.Secret{}, inner)
		group.Go(func() {
			for range 50 {
				if _, err := wrapped.Reconcile(t.Context(), request); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if most != 1 || len(s.turns.taken) != 0 {
		t.Fatal(most, s.turns.taken)
	}
}

func TestARunWaitsForTheLeaseAndForItsOwnTurn(t *testing.T) {
	objects := fake.NewClientBuilder().WithObjects(secret(map[string]string{shardKey: "a"})).Build()
	s, _ := newTestShard(&fakeLeases{}, &fakeClock{})
	s.client = s.Client(objects)
	ran := make(chan struct{}, 1)
	wrapped := s.Reconciler(&corev1.Secret{}, reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) {
		ran <- struct{}{}
		return reconcile.Result{}, nil
	}))
	done := make(chan error, 1)
	go func() {
		_, err := wrapped.Reconcile(t.Context(), request)
		done <- err
	}()
	select {
	case <-ran:
		t.Fatal("it ran without the Lease")
	case <-time.After(10 * time.Millisecond): // Proves nothing if it passes, but can fail.
	}
	s.guard.grant(40 * time.Second)
	receive(t, ran)
	if err := receive(t, done); err != nil {
		t.Fatal(err)
	}
	// A stopping shard takes nothing, and says nothing.
	s.guard.stop()
	if _, err := wrapped.Reconcile(t.Context(), request); err != nil || len(ran) > 0 {
		t.Fatal(err)
	}
}

func TestDrainsComeBeforeTheRest(t *testing.T) {
	s, _ := newTestShard(&fakeLeases{}, &fakeClock{})
	objects := &informertest.FakeInformers{}
	queue := priorityqueue.New[reconcile.Request]("test")
	defer queue.ShutDown()
	informer, err := objects.FakeInformerFor(t.Context(), &corev1.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	drains := s.Drains(objects, &corev1.Secret{})
	if err := drains.Start(t.Context(), queue); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := drains.(source.SyncingSource).WaitForSync(ctx); err != nil {
		t.Fatal(err)
	}
	other := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "ns", Name: "other"}}
	queue.Add(other)
	ours, draining := secret(map[string]string{shardKey: "a"}), secret(map[string]string{shardKey: "a", drainKey: ""})
	undrained := ours.DeepCopy()
	undrained.Name = "y"
	informer.Add(undrained)
	informer.Update(ours, draining)
	first, priority, _ := queue.GetWithPriority()
	second, _, _ := queue.GetWithPriority()
	if first != request || priority != drainPriority || second != other || queue.Len() != 0 {
		t.Fatal(first, priority, second, queue.Len())
	}
}
