package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ringmaster.dev/shard"
)

const helloSum = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

var request = reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "ns", Name: "x"}}

func hello() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "x", UID: "u"},
		Data:       map[string][]byte{"greeting": []byte("hello")},
	}
}

// reconcileOnce runs the logic once, and returns the lines it told, without their times.
func reconcileOnce(t *testing.T, objects client.Client, live client.Reader) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := checksums{client: objects, live: live, labels: map[string]string{"ring": "a"}, events: &events{shard: "a", out: &out}}
	_, err := c.Reconcile(t.Context(), request)
	var told []string
	for text := range strings.Lines(out.String()) {
		var parsed line
		if err := json.Unmarshal([]byte(text), &parsed); err != nil {
			t.Fatal(err)
		}
		if age := time.Since(time.UnixMicro(parsed.TS)); age < 0 || age > time.Hour || parsed.Shard != "a" {
			t.Fatal(text)
		}
		_, rest, _ := strings.Cut(text, `"shard":"a",`)
		told = append(told, strings.TrimSpace(rest))
	}
	return strings.Join(told, "\n"), err
}

func between(told string) string {
	begin, end := `"event":"begin","object":"ns/x"}`, `"event":"end","object":"ns/x"}`
	if told != "" {
		told += "\n"
	}
	return begin + "\n" + told + end
}

func TestASecretsConfigMapIsCreatedUpdatedAndLeftAlone(t *testing.T) {
	objects := fake.NewClientBuilder().WithObjects(hello()).Build()
	step := func(wanted string) corev1.ConfigMap {
		t.Helper()
		told, err := reconcileOnce(t, objects, objects)
		if err != nil {
			t.Fatal(err)
		}
		var made corev1.ConfigMap
		if err := objects.Get(t.Context(), types.NamespacedName{Namespace: "ns", Name: "checksums-x"}, &made); err != nil {
			t.Fatal(err)
		}
		if told != between(strings.ReplaceAll(wanted, "RV", made.ResourceVersion)) {
			t.Fatal(told)
		}
		return made
	}
	made := step(`"event":"wrote","object":"ns/x","verb":"create","name":"checksums-x","rv":"RV"}`)
	owner := made.OwnerReferences[0]
	if len(made.Data) != 1 || made.Data["greeting"] != helloSum || made.Labels["ring"] != "a" || owner.APIVersion != "v1" ||
		owner.Kind != "Secret" || owner.Name != "x" || owner.UID != "u" || !*owner.Controller || *owner.BlockOwnerDeletion {
		t.Fatalf("%+v", made)
	}
	step("")
	made.Data["greeting"] = "edited"
	if err := objects.Update(t.Context(), &made); err != nil {
		t.Fatal(err)
	}
	made = step(`"event":"wrote","object":"ns/x","verb":"update","name":"checksums-x","rv":"RV"}`)
	if made.Data["greeting"] != helloSum {
		t.Fatalf("%+v", made)
	}
}

func TestASecretThatIsDeletedOrGoneGetsNothing(t *testing.T) {
	now := metav1.Now()
	deleted := hello()
	deleted.DeletionTimestamp, deleted.Finalizers = &now, []string{"example.com/x"}
	for _, stored := range [][]client.Object{{deleted}, nil} {
		objects := fake.NewClientBuilder().WithObjects(stored...).Build()
		if told, err := reconcileOnce(t, objects, objects); err != nil || told != between("") {
			t.Fatal(told, err)
		}
	}
}

// A ConfigMap that isn't in the cache yet is not made twice; a stranger's of its name is told.
func TestAConfigMapThatTheCacheLacksIsReadFirst(t *testing.T) {
	cached := fake.NewClientBuilder().WithObjects(hello()).Build()
	ours := (&checksums{}).wanted(hello())
	if told, err := reconcileOnce(t, cached, fake.NewClientBuilder().WithObjects(ours).Build()); err != nil || told != between("") {
		t.Fatal(told, err)
	}
	stranger := ours.DeepCopy()
	stranger.OwnerReferences = nil
	refusing := interceptor.NewClient(cached, interceptor.Funcs{
		Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
			return apierrors.NewAlreadyExists(schema.GroupResource{Resource: "configmaps"}, "checksums-x")
		},
	})
	told, err := reconcileOnce(t, refusing, fake.NewClientBuilder().WithObjects(stranger).Build())
	if !apierrors.IsAlreadyExists(err) ||
		told != between(`"event":"failed","object":"ns/x","verb":"create","code":409,"reason":"AlreadyExists"}`) {
		t.Fatal(told, err)
	}
}

func TestFlags(t *testing.T) {
	opts, kubeconfig, err := parse(strings.Fields(
		"--ring r --name a --namespace ns --dialect controller-sharding --lease-duration 5s --renew-deadline 3s --retry-period 500ms --kubeconfig k"))
	if err != nil || kubeconfig != "k" || opts.Ring != "r" || opts.Name != "a" || opts.Namespace != "ns" ||
		opts.Dialect != shard.ControllerSharding || opts.LeaseDuration != 5*time.Second || opts.RenewDeadline != 3*time.Second ||
		opts.RetryPeriod != 500*time.Millisecond {
		t.Fatalf("%+v %v", opts, err)
	}
	for _, wrong := range []string{"", "--ring r --dialect x", "--ring r more"} {
		if _, _, err := parse(strings.Fields(wrong)); err == nil {
			t.Errorf("%q: no error", wrong)
		}
	}
	if _, _, err := parse([]string{"--ring", "r", "--retry-period", "2"}); err == nil {
		t.Error("a time without a unit")
	}
}
