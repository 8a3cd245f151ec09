// The business logic: a ConfigMap with the checksums of each Secret's values.
// Never asks whose a Secret is: it is called for this shard's only.

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// checksums reconciles Secrets.
type checksums struct {
	// The Manager's: reads from its cache, writes while the shard has the right to work.
	client client.Client
	// Reads from the API server.
	live client.Reader
	// What a new ConfigMap needs, so that this shard sees it.
	labels map[string]string
	events *events
}

func (c *checksums) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	c.events.write(line{Event: "begin", Object: request.String()})
	defer c.events.write(line{Event: "end", Object: request.String()})
	return reconcile.Result{}, c.sync(ctx, request)
}

func (c *checksums) sync(ctx context.Context, request reconcile.Request) error {
	var secret corev1.Secret
	if err := c.client.Get(ctx, request.NamespacedName, &secret); err != nil {
		return client.IgnoreNotFound(err)
	}
	if secret.DeletionTimestamp != nil {
		return nil
	}
	wanted := c.wanted(&secret)
	var actual corev1.ConfigMap
	err := c.client.Get(ctx, client.ObjectKeyFromObject(wanted), &actual)
	switch {
	case apierrors.IsNotFound(err):
		return c.create(ctx, request, &secret, wanted)
	case err != nil:
		return err
	case maps.Equal(actual.Data, wanted.Data):
		return nil
	}
	actual.Data = wanted.Data
	err = c.client.Update(ctx, &actual)
	return c.tell(request, "update", &actual, err)
}

// create makes the ConfigMap unless it is there. Of a Secret that comes from another shard, the ConfigMap comes by a watch
// of its own and may be late: its event is another run.
func (c *checksums) create(ctx context.Context, request reconcile.Request, secret *corev1.Secret, wanted *corev1.ConfigMap) error {
	var actual corev1.ConfigMap
	err := c.live.Get(ctx, client.ObjectKeyFromObject(wanted), &actual)
	if err == nil && metav1.IsControlledBy(&actual, secret) {
		return nil
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	err = c.client.Create(ctx, wanted)
	return c.tell(request, "create", wanted, err)
}

func (c *checksums) wanted(secret *corev1.Secret) *corev1.ConfigMap {
	isController, blocks := true, false
	data := make(map[string]string, len(secret.Data))
	for key, value := range secret.Data {
		sum := sha256.Sum256(value)
		data[key] = hex.EncodeToString(sum[:])
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: secret.Namespace,
			Name:      "checksums-" + secret.Name,
			Labels:    maps.Clone(c.labels),
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion:         "v1",
				Kind:               "Secret",
				Name:               secret.Name,
				UID:                secret.UID,
				Controller:         &isController,
				BlockOwnerDeletion: &blocks,
			}},
		},
		Data: data,
	}
}

// tell writes how a write ended. An error brings another run, after a while.
func (c *checksums) tell(request reconcile.Request, verb string, written *corev1.ConfigMap, err error) error {
	if err == nil {
		c.events.write(line{
			Event: "wrote", Object: request.String(), Verb: verb, Name: written.Name, RV: written.ResourceVersion,
		})
		return nil
	}
	failed := line{Event: "failed", Object: request.String(), Verb: verb, Reason: err.Error()}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		failed.Code, failed.Reason = status.Status().Code, string(status.Status().Reason)
		if failed.Reason == "" {
			failed.Reason = http.StatusText(int(failed.Code))
		}
	}
	c.events.write(failed)
	return err
}
