//! The kinds of `metacontroller.k8s.io/v1alpha1`, written from its contract, so that existing objects still apply.
//!
//! Their schemas refuse nothing that Metacontroller accepts: no CEL, no bounds. What the engine can't do is told when
//! an object is converted. Nothing here knows defaults: they are in [`crate::convert`].

mod composite;
mod decorator;
mod hook;
mod revision;

pub use composite::{
    ChildResource, ChildUpdateStrategy, CompositeController, CompositeControllerSpec, CompositeControllerStatus,
    CompositeHooks, ParentResource, RevisionHistory, StatusCheck, StatusChecks,
};
pub use decorator::{
    AnnotationExpression, AnnotationSelector, Attachment, AttachmentUpdateStrategy, DecoratorController,
    DecoratorControllerSpec, DecoratorControllerStatus, DecoratorHooks, TargetResource,
};
pub use hook::{
    Authorization, BasicAuth, CaBundle, ClientTls, EndpointConfig, Etag, Hook, KeyReference, ObjectReference,
    ServiceReference, Webhook,
};
pub use revision::{ControllerRevision, ControllerRevisionFields, RevisionChildren};
