// The client of a shard: writes only while the shard has the right to work.
// Never limits reads, and adds nothing to objects.

package shard

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

type guardedClient struct {
	client.Client
	guard *guard
}

func (c *guardedClient) Apply(ctx context.Context, obj runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
	return c.guard.write(ctx, func(ctx context.Context) error { return c.Client.Apply(ctx, obj, opts...) })
}

func (c *guardedClient) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	return c.guard.write(ctx, func(ctx context.Context) error { return c.Client.Create(ctx, obj, opts...) })
}

func (c *guardedClient) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	return c.guard.write(ctx, func(ctx context.Context) error { return c.Client.Delete(ctx, obj, opts...) })
}

func (c *guardedClient) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	return c.guard.write(ctx, func(ctx context.Context) error { return c.Client.Update(ctx, obj, opts...) })
}

func (c *guardedClient) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	return c.guard.write(ctx, func(ctx context.Context) error { return c.Client.Patch(ctx, obj, patch, opts...) })
}

func (c *guardedClient) DeleteAllOf(ctx context.Context, obj client.Object, opts ...client.DeleteAllOfOption) error {
	return c.guard.write(ctx, func(ctx context.Context) error { return c.Client.DeleteAllOf(ctx, obj, opts...) })
}

func (c *guardedClient) Status() client.SubResourceWriter {
	return c.SubResource("status")
}

func (c *guardedClient) SubResource(name string) client.SubResourceClient {
	return &guardedSubResource{SubResourceClient: c.Client.SubResource(name), guard: c.guard}
}

type guardedSubResource struct {
	client.SubResourceClient
	guard *guard
}

func (c *guardedSubResource) Create(ctx context.Context, obj, body client.Object, opts ...client.SubResourceCreateOption) error {
	return c.guard.write(ctx, func(ctx context.Context) error { return c.SubResourceClient.Create(ctx, obj, body, opts...) })
}

func (c *guardedSubResource) Update(ctx context.Context, obj client.Object, opts ...client.SubResourceUpdateOption) error {
	return c.guard.write(ctx, func(ctx context.Context) error { return c.SubResourceClient.Update(ctx, obj, opts...) })
}

func (c *guardedSubResource) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
	return c.guard.write(ctx, func(ctx context.Context) error { return c.SubResourceClient.Patch(ctx, obj, patch, opts...) })
}

func (c *guardedSubResource) Apply(ctx context.Context, obj runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
	return c.guard.write(ctx, func(ctx context.Context) error { return c.SubResourceClient.Apply(ctx, obj, opts...) })
}
