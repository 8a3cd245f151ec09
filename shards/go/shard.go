// Package shard makes the controllers of a controller-runtime Manager a shard of an external ring: Ringmaster, or
// controller-sharding, gives each object to one shard by a label, and the shard works on what has its label.
//
//	s, err := shard.New(config, shard.Options{Ring: "checksums"})
//	mgr, err := ctrl.NewManager(config, s.ManagerOptions(ctrl.Options{}, &corev1.Secret{}, &corev1.ConfigMap{}))
//	err = s.Add(mgr)
//	err = s.ControllerManagedBy(mgr, &corev1.Secret{}).Owns(&corev1.ConfigMap{}).Complete(s.Reconciler(&corev1.Secret{}, inner))
//	if err = mgr.Start(ctx); err == nil {
//		err = s.Err()
//	}
//
// It never assigns an object, and never writes an object's labels but to let it go.
package shard

import (
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	defaultLeaseDuration = 15 * time.Second
	defaultRenewDeadline = 10 * time.Second
	defaultRetryPeriod   = 2 * time.Second
	defaultStopTimeout   = 10 * time.Second
	// A crashed shard's objects wait that long.
	maxLeaseDuration = 600 * time.Second

	podNamespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
	connectTime      = 5 * time.Second
	keepAliveTime    = 10 * time.Second
)

// Options say which shard this process is.
type Options struct {
	// Ring is the name of the ControllerRing. Required.
	Ring string
	// Name is the shard's name, and that of its Lease: at most 63 characters, unique within the ring. By default the host
	// name, which is the Pod's.
	Name string
	// Namespace is that of the Lease. By default the Pod's.
	Namespace string
	// Dialect has the names of the ring's API group. By default Ringmaster.
	Dialect Dialect
	// LeaseDuration is after how long without a renewal the shard counts as lost: whole seconds, at most 600. By default 15 s.
	LeaseDuration time.Duration
	// RenewDeadline is for how long the shard works after the last successful renewal was sent: less than LeaseDuration.
	// By default 10 s.
	RenewDeadline time.Duration
	// RetryPeriod is the time between two renewals: less than RenewDeadline. By default 2 s.
	RetryPeriod time.Duration
	// StopTimeout is how long runs may go on once the Manager is told to stop. Then they are cancelled. By default 10 s.
	// The Manager's GracefulShutdownTimeout (30 s by default) must be longer, or the Lease is not released.
	StopTimeout time.Duration
	// Observe is told what happens, at once and from any goroutine. Optional. It must not block.
	Observe func(Event)
}

// EventType says what happened.
type EventType string

const (
	// Started: the Lease is held, runs begin.
	Started EventType = "started"
	// Acknowledged: an object was let go.
	Acknowledged EventType = "acknowledged"
	// Stopped: nothing runs any more, and the Lease is released.
	Stopped EventType = "stopped"
	// Lost: the right to work has ended, and what ran is cancelled.
	Lost EventType = "lost"
)

// Event is what Options.Observe is told.
type Event struct {
	Type EventType
	// Object is which object was acknowledged.
	Object types.NamespacedName
	// ResourceVersion is that of the acknowledged object after it.
	ResourceVersion string
}

// Shard is this process as a shard of a ring.
type Shard struct {
	name       string
	shardLabel string
	drainLabel string
	observe    func(Event)
	guard      *guard
	keeper     *keeper
	turns      turns
	// The Manager's client, guarded. Set by Add.
	client client.Client
}

// New makes the process a shard, once it is added to a Manager. The Lease is kept over a connection of its own, without
// the config's limits.
func New(config *rest.Config, opts Options) (*Shard, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	own := rest.CopyConfig(config)
	own.QPS = -1
	own.RateLimiter = nil
	if own.Dial == nil {
		// A dialer of its own is what keeps client-go from sharing the connection.
		own.Dial = (&net.Dialer{Timeout: connectTime, KeepAlive: keepAliveTime}).DialContext
	}
	httpClient, err := rest.HTTPClientFor(own)
	if err != nil {
		return nil, err
	}
	leases, err := coordinationv1client.NewForConfigAndClient(own, httpClient)
	if err != nil {
		return nil, err
	}
	return assemble(leases.Leases(opts.Namespace), boottime, opts), nil
}

// assemble makes a Shard of options that are complete.
func assemble(client leases, now func() time.Duration, opts Options) *Shard {
	guard := newGuard(now)
	return &Shard{
		name:       opts.Name,
		shardLabel: opts.Dialect.ShardLabel + opts.Ring,
		drainLabel: opts.Dialect.DrainLabel + opts.Ring,
		observe:    opts.Observe,
		guard:      guard,
		keeper: &keeper{
			lease: &lease{
				client:   client,
				now:      now,
				name:     opts.Name,
				duration: opts.LeaseDuration,
				labels:   map[string]string{opts.Dialect.LeaseRing: opts.Ring},
			},
			guard:         guard,
			log:           ctrl.Log.WithName("shard").WithValues("shard", opts.Name, "ring", opts.Ring),
			renewDeadline: opts.RenewDeadline,
			retryPeriod:   opts.RetryPeriod,
			stopTimeout:   opts.StopTimeout,
			observe:       opts.Observe,
		},
		turns: turns{taken: make(map[turn]chan struct{})},
	}
}

// Name is the shard's name.
func (s *Shard) Name() string {
	return s.name
}

// Labels are what an object must have that the user's function creates: without them the shard doesn't see it before the
// sharder has found it. The map is the caller's.
func (s *Shard) Labels() map[string]string {
	return map[string]string{s.shardLabel: s.name}
}

// Selector selects the objects of this shard.
func (s *Shard) Selector() labels.Selector {
	return labels.SelectorFromSet(s.Labels())
}

// ManagerOptions completes a Manager's options: the watches of these kinds, main and controlled, are filtered by the
// shard's label, the Manager's client is that of Client, and there is no leader election, since each shard leads its own
// objects. Everything in the Manager belongs to the shard: what isn't sharded needs a Manager of its own.
func (s *Shard) ManagerOptions(opts ctrl.Options, kinds ...client.Object) ctrl.Options {
	opts.LeaderElection = false
	byObject := make(map[client.Object]cache.ByObject, len(opts.Cache.ByObject)+len(kinds))
	for kind, by := range opts.Cache.ByObject {
		byObject[kind] = by
	}
	for _, kind := range kinds {
		key := kind
		for known := range byObject {
			if isSameKind(known, kind) {
				key = known
			}
		}
		by := byObject[key]
		if by.Label == nil {
			by.Label = opts.Cache.DefaultLabelSelector
		}
		by.Label = s.restrict(by.Label)
		if by.Namespaces == nil && hasSelectors(opts.Cache.DefaultNamespaces) {
			// They would go before the kind's.
			by.Namespaces = opts.Cache.DefaultNamespaces
		}
		by.Namespaces = s.restrictNamespaces(by.Namespaces)
		byObject[key] = by
	}
	opts.Cache.ByObject = byObject
	newClient := opts.NewClient
	if newClient == nil {
		newClient = client.New
	}
	opts.NewClient = func(config *rest.Config, clientOpts client.Options) (client.Client, error) {
		made, err := newClient(config, clientOpts)
		if err != nil {
			return nil, err
		}
		return s.Client(made), nil
	}
	return opts
}

// isSameKind says whether two objects stand for the same kind in the same representation.
func isSameKind(a, b client.Object) bool {
	return reflect.TypeOf(a) == reflect.TypeOf(b) && a.GetObjectKind().GroupVersionKind() == b.GetObjectKind().GroupVersionKind()
}

// restrict narrows a selector, which may be nil, to this shard.
func (s *Shard) restrict(selector labels.Selector) labels.Selector {
	if selector == nil {
		return s.Selector()
	}
	requirements, _ := s.Selector().Requirements()
	return selector.Add(requirements...)
}

func hasSelectors(namespaces map[string]cache.Config) bool {
	for _, config := range namespaces {
		if config.LabelSelector != nil {
			return true
		}
	}
	return false
}

// restrictNamespaces narrows the selectors that single namespaces have; the others take the kind's.
func (s *Shard) restrictNamespaces(namespaces map[string]cache.Config) map[string]cache.Config {
	if namespaces == nil {
		return nil
	}
	restricted := make(map[string]cache.Config, len(namespaces))
	for namespace, config := range namespaces {
		if config.LabelSelector != nil {
			config.LabelSelector = s.restrict(config.LabelSelector)
		}
		restricted[namespace] = config
	}
	return restricted
}

// Add makes the Manager keep the shard's Lease, and stop with an ErrLost when the right to work is lost.
func (s *Shard) Add(mgr ctrl.Manager) error {
	if s.client != nil {
		return errors.New("the shard was added to a Manager already")
	}
	if err := mgr.Add(s.keeper); err != nil {
		return err
	}
	s.client = s.Client(mgr.GetClient())
	return nil
}

// Client guards a client: before each write it checks the right to work, and a write under way is cancelled when the
// right ends. The Manager's own client is guarded already if the Manager was made with ManagerOptions.
func (s *Shard) Client(unguarded client.Client) client.Client {
	if guarded, ok := unguarded.(*guardedClient); ok && guarded.guard == s.guard {
		return unguarded
	}
	return &guardedClient{Client: unguarded, guard: s.guard}
}

// Err says, after the Manager ended, why the Lease was lost or not released; nil if it was released, or never held. The
// process must end then with another code than 0. A Manager that is told to stop doesn't return it itself.
func (s *Shard) Err() error {
	return s.keeper.result()
}

// complete sets what is left out, and checks everything.
func (o *Options) complete() error {
	if o.Dialect == (Dialect{}) {
		o.Dialect = Ringmaster
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	if o.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("Name: there is no host name to take, set it: %w", err)
		}
		o.Name = host
	}
	if o.Namespace == "" {
		namespace, err := os.ReadFile(podNamespaceFile)
		if err != nil {
			return fmt.Errorf("Namespace: set it, since the process doesn't run in a Pod: %w", err)
		}
		o.Namespace = strings.TrimSpace(string(namespace))
	}
	for _, field := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&o.LeaseDuration, defaultLeaseDuration},
		{&o.RenewDeadline, defaultRenewDeadline},
		{&o.RetryPeriod, defaultRetryPeriod},
		{&o.StopTimeout, defaultStopTimeout},
	} {
		if *field.value == 0 {
			*field.value = field.fallback
		}
	}
	return o.check()
}

func (o *Options) check() error {
	if o.Ring == "" {
		return errors.New("Ring: must be set to the name of the ControllerRing")
	}
	for _, key := range []string{o.Dialect.ShardLabel + o.Ring, o.Dialect.DrainLabel + o.Ring} {
		if wrong := validation.IsQualifiedName(key); len(wrong) > 0 {
			return fmt.Errorf("Ring: %q gives the label key %q: %s", o.Ring, key, strings.Join(wrong, "; "))
		}
	}
	wrong := append(validation.IsDNS1123Subdomain(o.Name), validation.IsValidLabelValue(o.Name)...)
	if len(wrong) > 0 {
		return fmt.Errorf("Name: %q must be a Lease's name and a label's value: %s", o.Name, strings.Join(wrong, "; "))
	}
	if wrong := validation.IsDNS1123Label(o.Namespace); len(wrong) > 0 {
		return fmt.Errorf("Namespace: %q: %s", o.Namespace, strings.Join(wrong, "; "))
	}
	switch {
	case o.LeaseDuration < time.Second || o.LeaseDuration%time.Second != 0 || o.LeaseDuration > maxLeaseDuration:
		return fmt.Errorf("LeaseDuration: %s must be whole seconds, from 1s to %s", o.LeaseDuration, maxLeaseDuration)
	case o.RenewDeadline <= 0 || o.RenewDeadline >= o.LeaseDuration:
		return fmt.Errorf("RenewDeadline: %s must be more than 0 and less than LeaseDuration (%s)", o.RenewDeadline, o.LeaseDuration)
	case o.RetryPeriod <= 0 || o.RetryPeriod >= o.RenewDeadline:
		return fmt.Errorf("RetryPeriod: %s must be more than 0 and less than RenewDeadline (%s)", o.RetryPeriod, o.RenewDeadline)
	case o.StopTimeout < 0:
		return fmt.Errorf("StopTimeout: %s must not be negative", o.StopTimeout)
	}
	return nil
}
