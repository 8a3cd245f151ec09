package shard

import (
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func TestOptionsNameTheFieldAndTheFix(t *testing.T) {
	for field, change := range map[string]func(*Options){
		"Ring: must":                func(o *Options) { o.Ring = "" },
		"Ring: \"a/b\"":             func(o *Options) { o.Ring = "a/b" },
		"Name: \"Host\"":            func(o *Options) { o.Name = "Host" },
		"Name: \"aaaa":              func(o *Options) { o.Name = strings.Repeat("a", 64) },
		"Namespace: ":               func(o *Options) { o.Namespace = "a.b" },
		"LeaseDuration: 1.5s":       func(o *Options) { o.LeaseDuration = 1500 * time.Millisecond },
		"LeaseDuration: 10m1s":      func(o *Options) { o.LeaseDuration = 601 * time.Second },
		"RenewDeadline: 15s":        func(o *Options) { o.RenewDeadline = 15 * time.Second },
		"RetryPeriod: 10s":          func(o *Options) { o.RetryPeriod = 10 * time.Second },
		"StopTimeout: -1s":          func(o *Options) { o.StopTimeout = -time.Second },
		"RetryPeriod: -1s":          func(o *Options) { o.RetryPeriod = -time.Second },
		"LeaseDuration: 500ms must": func(o *Options) { o.LeaseDuration = 500 * time.Millisecond },
	} {
		opts := Options{Ring: "r", Name: "a", Namespace: "ns"}
		change(&opts)
		if _, err := New(&rest.Config{}, opts); err == nil || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	opts := Options{Ring: "r", Name: "a", Namespace: "ns"}
	if err := opts.complete(); err != nil || opts.Dialect != Ringmaster || opts.LeaseDuration != 15*time.Second ||
		opts.RenewDeadline != 10*time.Second || opts.RetryPeriod != 2*time.Second || opts.StopTimeout != 10*time.Second {
		t.Fatalf("%v %+v", err, opts)
	}
}

func TestWatchesAreNarrowedToTheShardAndKeepWhatTheUserSet(t *testing.T) {
	s, _ := newTestShard(&fakeLeases{}, &fakeClock{})
	blue, red := labels.SelectorFromSet(labels.Set{"colour": "blue"}), labels.SelectorFromSet(labels.Set{"colour": "red"})
	known := &corev1.Secret{}
	opts := s.ManagerOptions(ctrl.Options{LeaderElection: true, Cache: cache.Options{
		DefaultLabelSelector: red,
		ByObject: map[client.Object]cache.ByObject{
			known:         {Label: blue, Namespaces: map[string]cache.Config{"ns": {LabelSelector: red}, "other": {}}},
			&corev1.Pod{}: {Label: blue},
		},
	}}, &corev1.Secret{}, &corev1.ConfigMap{})
	if opts.LeaderElection || len(opts.Cache.ByObject) != 3 {
		t.Fatalf("%+v", opts.Cache.ByObject)
	}
	selector := func(selector labels.Selector) string {
		if selector == nil {
			return "nil"
		}
		return selector.String()
	}
	for kind, by := range opts.Cache.ByObject {
		wanted := map[string]string{
			"*v1.Secret": "colour=blue,ring.ringmaster.dev/r=a", "*v1.ConfigMap": "colour=red,ring.ringmaster.dev/r=a", "*v1.Pod": "colour=blue",
		}[typeName(kind)]
		if got := selector(by.Label); got != wanted {
			t.Errorf("%T: %s", kind, got)
		}
	}
	namespaces := opts.Cache.ByObject[known].Namespaces
	if got := selector(namespaces["ns"].LabelSelector); got != "colour=red,ring.ringmaster.dev/r=a" {
		t.Error(got)
	}
	if got := selector(namespaces["other"].LabelSelector); got != "nil" {
		t.Error(got)
	}
}

func typeName(kind client.Object) string {
	switch kind.(type) {
	case *corev1.Secret:
		return "*v1.Secret"
	case *corev1.ConfigMap:
		return "*v1.ConfigMap"
	default:
		return "*v1.Pod"
	}
}

func TestSelectorsOfNamespacesByDefaultAreNarrowedToo(t *testing.T) {
	s, _ := newTestShard(&fakeLeases{}, &fakeClock{})
	red := labels.SelectorFromSet(labels.Set{"colour": "red"})
	kind := &corev1.Secret{}
	opts := s.ManagerOptions(ctrl.Options{Cache: cache.Options{
		DefaultNamespaces: map[string]cache.Config{"ns": {LabelSelector: red}},
	}}, kind)
	if got := opts.Cache.ByObject[kind].Namespaces["ns"].LabelSelector.String(); got != "colour=red,ring.ringmaster.dev/r=a" {
		t.Error(got)
	}
	if got := opts.Cache.DefaultNamespaces["ns"].LabelSelector.String(); got != "colour=red" {
		t.Error(got)
	}
}

func TestAClientIsGuardedOnce(t *testing.T) {
	s, _ := newTestShard(&fakeLeases{}, &fakeClock{})
	once := s.Client(fake.NewClientBuilder().Build())
	if s.Client(once) != once {
		t.Fatal("guarded twice")
	}
}

// The names are those of the sharder.
func TestDialectsAreThoseOfRingmaster(t *testing.T) {
	source, err := os.ReadFile("../../src/core/dialect.rs")
	if os.IsNotExist(err) {
		t.Skip("not in Ringmaster's repository")
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, dialect := range map[string]Dialect{"RINGMASTER_RING": Ringmaster, "CONTROLLER_SHARDING_RING": ControllerSharding} {
		_, after, _ := strings.Cut(string(source), "pub static "+name+": RingDialect")
		body, _, isFound := strings.Cut(after, "};")
		if !isFound {
			t.Fatalf("%s isn't in dialect.rs", name)
		}
		for field, value := range map[string]string{
			"shard_label": dialect.ShardLabel, "drain_label": dialect.DrainLabel, "lease_ring": dialect.LeaseRing,
		} {
			if !strings.Contains(body, field+": \""+value+"\"") {
				t.Errorf("%s.%s isn't %q", name, field, value)
			}
		}
	}
}
