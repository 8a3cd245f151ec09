// Reflector mirrors the ConfigMaps of a namespace by client-go's Reflector, over the dynamic client, and says what it
// has once the ConfigMap "marker" is in its store: one line of JSON on stdout that begins with {"objects". Whether it
// lists or streams the initial objects is decided by client-go's own KUBE_FEATURE_WatchListClient.
//
// It never decides whether what it has is right, and it runs until it is killed.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// marker is the ConfigMap after which nothing follows.
const marker = "marker"

// pause is the time between two attempts of the reflector: its default grows to 30 s, and a trial has many faults.
const pause = 20 * time.Millisecond

// object is what is told of one object.
type object struct {
	Version string            `json:"resourceVersion"`
	Data    map[string]string `json:"data"`
}

// report is the line that is told.
type report struct {
	Objects map[string]object `json:"objects"`
	// Backward holds the events and list items that were older than what had been seen of their object.
	Backward []string `json:"backward"`
	// Lists and Watches count requests, Streams those watches that asked for the initial objects.
	Lists   int `json:"lists"`
	Watches int `json:"watches"`
	Streams int `json:"streams"`
	// Events counts what came by watches.
	Events int `json:"events"`
	// Gone counts watches refused with 410, GoneInStream those ended by an event that says so.
	Gone         int `json:"gone"`
	GoneInStream int `json:"goneInStream"`
}

// mirror is the reflector's store.
type mirror struct {
	mutex  sync.Mutex
	newest map[string]uint64
	report report
	told   bool
}

func (m *mirror) Add(item any) error    { return m.put(item) }
func (m *mirror) Update(item any) error { return m.put(item) }
func (m *mirror) Resync() error         { return nil }

func (m *mirror) put(item any) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.report.Events++
	name, shown := m.see(item.(*unstructured.Unstructured), false)
	m.report.Objects[name] = shown
	m.tell()
	return nil
}

func (m *mirror) Delete(item any) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.report.Events++
	name, _ := m.see(item.(*unstructured.Unstructured), false)
	delete(m.report.Objects, name)
	return nil
}

func (m *mirror) Replace(items []any, _ string) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.report.Objects = map[string]object{}
	for _, item := range items {
		name, shown := m.see(item.(*unstructured.Unstructured), true)
		m.report.Objects[name] = shown
	}
	m.tell()
	return nil
}

// see notes an object's version. A list may show again what was seen, an event may not.
func (m *mirror) see(item *unstructured.Unstructured, listed bool) (string, object) {
	name, text := item.GetName(), item.GetResourceVersion()
	version, err := strconv.ParseUint(text, 10, 64)
	newest := m.newest[name]
	if err != nil || version < newest || (version == newest && !listed) {
		m.report.Backward = append(m.report.Backward, fmt.Sprintf("%s: %s after %d", name, text, newest))
	}
	m.newest[name] = max(newest, version)
	data, _, _ := unstructured.NestedStringMap(item.Object, "data")
	return name, object{Version: text, Data: data}
}

func (m *mirror) tell() {
	if _, there := m.report.Objects[marker]; !there || m.told {
		return
	}
	m.told = true
	line, err := json.Marshal(m.report)
	if err != nil {
		fail(err)
	}
	fmt.Println(string(line))
}

// source lists and watches, and counts what comes of it.
func (m *mirror) source(client dynamic.ResourceInterface) cache.ListerWatcher {
	count := func(change func(*report)) {
		m.mutex.Lock()
		defer m.mutex.Unlock()
		change(&m.report)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options v1.ListOptions) (runtime.Object, error) {
			count(func(r *report) { r.Lists++ })
			return client.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options v1.ListOptions) (watch.Interface, error) {
			count(func(r *report) {
				r.Watches++
				if options.SendInitialEvents != nil && *options.SendInitialEvents {
					r.Streams++
				}
			})
			events, err := client.Watch(ctx, options)
			if err != nil {
				if errors.IsResourceExpired(err) {
					count(func(r *report) { r.Gone++ })
				}
				return nil, err
			}
			return watch.Filter(events, func(event watch.Event) (watch.Event, bool) {
				if event.Type == watch.Error && errors.IsResourceExpired(errors.FromObject(event.Object)) {
					count(func(r *report) { r.GoneInStream++ })
				}
				return event, true
			}), nil
		},
	}
}

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: %s KUBECONFIG NAMESPACE", os.Args[0]))
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	if err != nil {
		fail(err)
	}
	// No limit of its own.
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		fail(err)
	}
	store := &mirror{newest: map[string]uint64{}, report: report{Objects: map[string]object{}, Backward: []string{}}}
	configMaps := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(os.Args[2])
	expected := &unstructured.Unstructured{}
	expected.SetAPIVersion("v1")
	expected.SetKind("ConfigMap")
	options := cache.ReflectorOptions{Name: "suites", Backoff: &wait.Backoff{Duration: pause}}
	cache.NewReflectorWithOptions(store.source(configMaps), expected, store, options).RunWithContext(context.Background())
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "reflector:", err)
	os.Exit(1)
}
