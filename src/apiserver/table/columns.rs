//! The columns of each built-in kind that has its own printer, as kube-apiserver v1.36.3 sends them.
//!
//! Only data, word for word what the server answers: `tests.rs` compares it with a recorded answer. It decides nothing.

use super::Column;

const NAME_TEXT: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow \
     a client to request the generation of an appropriate name automatically. Name is primarily intended for \
     creation idempotence and configuration definition. Cannot be updated. More info: \
     https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const AGE_TEXT: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
     guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is \
     represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: \
     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const CONTAINERS_TEXT: &str = "Names of each container in the template.";
const IMAGES_TEXT: &str = "Images referenced by each container in the template.";

/// The first column of every table.
pub(super) const NAME: Column =
    Column { name: "Name", kind: "string", format: "name", description: NAME_TEXT, priority: 0 };
/// The age column of a custom kind that declares no columns; a built-in kind's is a string.
pub(super) const AGE_DATE: Column = Column { kind: "date", ..AGE };
/// The columns of a kind without a printer of its own, as roles and custom resource definitions are.
pub(super) const DEFAULT: &[Column] = &[NAME, Column { name: "Created At", kind: "date", ..AGE }];

const AGE: Column = string("Age", AGE_TEXT);
const CONTAINERS: Column = wide("Containers", CONTAINERS_TEXT);
const IMAGES: Column = wide("Images", IMAGES_TEXT);

const fn string(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 0 }
}

const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 1 }
}

const fn integer(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "integer", format: "", description, priority: 0 }
}

/// The one printer whose name column isn't marked as one.
pub(super) const SCALE: &[Column] = &[
    string("Name", NAME_TEXT),
    integer("Desired", "replicas is the desired number of instances for the scaled object."),
    integer("Available", "replicas is the actual number of observed instances of the scaled object."),
    AGE,
];

pub(super) const NAMESPACES: &[Column] = &[NAME, string("Status", "The status of the namespace"), AGE];

pub(super) const CONFIGMAPS: &[Column] = &[
    NAME,
    string(
        "Data",
        "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. \
         Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not \
         overlap with the keys in the BinaryData field, this is enforced during validation process.",
    ),
    AGE,
];

pub(super) const SECRETS: &[Column] = &[
    NAME,
    string(
        "Type",
        "Used to facilitate programmatic handling of secret data. More info: \
         https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
    ),
    string(
        "Data",
        "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The \
         serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly \
         non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
    ),
    AGE,
];

pub(super) const SERVICES: &[Column] = &[
    NAME,
    string(
        "Type",
        "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, \
         ClusterIP, NodePort, and LoadBalancer. \"ClusterIP\" allocates a cluster-internal IP address for \
         load-balancing to endpoints. Endpoints are determined by the selector or if that is not specified, by \
         manual construction of an Endpoints object or EndpointSlice objects. If clusterIP is \"None\", no virtual \
         IP is allocated and the endpoints are published as a set of endpoints rather than a virtual IP. \
         \"NodePort\" builds on ClusterIP and allocates a port on every node which routes to the same endpoints as \
         the clusterIP. \"LoadBalancer\" builds on NodePort and creates an external load-balancer (if supported in \
         the current cloud) which routes to the same endpoints as the clusterIP. \"ExternalName\" aliases this \
         service to the specified externalName. Several other fields do not apply to ExternalName services. More \
         info: https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types",
    ),
    string(
        "Cluster-IP",
        "clusterIP is the IP address of the service and is usually assigned randomly. If an address is specified \
         manually, is in-range (as per system configuration), and is not in use, it will be allocated to the \
         service; otherwise creation of the service will fail. This field may not be changed through updates unless \
         the type field is also being changed to ExternalName (which requires this field to be blank) or the type \
         field is being changed from ExternalName (in which case this field may optionally be specified, as describe \
         above).  Valid values are \"None\", empty string (\"\"), or a valid IP address. Setting this to \"None\" \
         makes a \"headless service\" (no virtual IP), which is useful when direct endpoint connections are \
         preferred and proxying is not required.  Only applies to types ClusterIP, NodePort, and LoadBalancer. If \
         this field is specified when creating a Service of type ExternalName, creation will fail. This field will \
         be wiped when updating a Service to type ExternalName. More info: \
         https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
    ),
    string(
        "External-IP",
        "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this \
         service.  These IPs are not managed by Kubernetes.  The user is responsible for ensuring that traffic \
         arrives at a node with this IP.  A common example is external load-balancers that are not part of the \
         Kubernetes system.",
    ),
    string(
        "Port(s)",
        "The list of ports that are exposed by this service. More info: \
         https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
    ),
    AGE,
    wide(
        "Selector",
        "Route service traffic to pods with label keys and values matching this selector. If empty or not present, \
         the service is assumed to have an external process managing its endpoints, which Kubernetes will not \
         modify. Only applies to types ClusterIP, NodePort, and LoadBalancer. Ignored if type is ExternalName. More \
         info: https://kubernetes.io/docs/concepts/services-networking/service/",
    ),
];

pub(super) const SERVICEACCOUNTS: &[Column] = &[NAME, AGE];

pub(super) const PODS: &[Column] = &[
    NAME,
    string("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    string("Status", "The aggregate status of the containers in this pod."),
    string(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod \
         has restarted.",
    ),
    AGE,
    wide("IP", "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated."),
    wide(
        "Node",
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by \
         the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes \
         responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to \
         be scheduled on a specific node. \
         https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
    ),
    wide(
        "Nominated Node",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled \
         right away as preemption victims receive their graceful termination periods. This field does not guarantee \
         that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes \
         become available sooner. Scheduler may also decide to give the resources on this node to a higher priority \
         pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when \
         the pod is scheduled.",
    ),
    wide(
        "Readiness Gates",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its \
         containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More \
         info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
    ),
];

pub(super) const EVENTS: &[Column] = &[
    string("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
    string("Type", "Type of this event (Normal, Warning), new types could be added in the future"),
    string(
        "Reason",
        "This should be a short, machine understandable string that gives the reason for the transition into the \
         object's current status.",
    ),
    string("Object", "The object that this event is about."),
    wide(
        "Subobject",
        "If referring to a piece of an object instead of an entire object, this string should contain a valid \
         JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object \
         reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \
         \"name\" refers to the name of the container that triggered the event) or if no container name is specified \
         \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some \
         well-defined way of referencing a part of an object.",
    ),
    wide("Source", "The component reporting this event. Should be a short machine understandable string."),
    string("Message", "A human-readable description of the status of this operation."),
    wide("First Seen", "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)"),
    wide("Count", "The number of times this event has occurred."),
    Column { priority: 1, ..NAME },
];

pub(super) const PERSISTENTVOLUMECLAIMS: &[Column] = &[
    NAME,
    string("Status", "phase represents the current phase of PersistentVolumeClaim."),
    string("Volume", "volumeName is the binding reference to the PersistentVolume backing this claim."),
    string("Capacity", "capacity represents the actual resources of the underlying volume."),
    string(
        "Access Modes",
        "accessModes contains the actual access modes the volume backing the PVC has. More info: \
         https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes-1",
    ),
    string("StorageClass", "StorageClass of the pvc"),
    string("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
    AGE,
    wide(
        "VolumeMode",
        "volumeMode defines what type of volume is required by the claim. Value of Filesystem is implied when not \
         included in claim spec.",
    ),
];

pub(super) const ENDPOINTSLICES: &[Column] = &[
    NAME,
    string(
        "AddressType",
        "addressType specifies the type of address carried by this EndpointSlice. All addresses in this slice must \
         be the same type. This field is immutable after creation. The following address types are currently \
         supported: * IPv4: Represents an IPv4 Address. * IPv6: Represents an IPv6 Address. * FQDN: Represents a \
         Fully Qualified Domain Name. (Deprecated) The EndpointSlice controller only generates, and kube-proxy only \
         processes, slices of addressType \"IPv4\" and \"IPv6\". No semantics are defined for the \"FQDN\" type.",
    ),
    string(
        "Ports",
        "ports specifies the list of network ports exposed by each endpoint in this slice. Each port must have a \
         unique name. Each slice may include a maximum of 100 ports. Services always have at least 1 port, so \
         EndpointSlices generated by the EndpointSlice controller will likewise always have at least 1 port. \
         EndpointSlices used for other purposes may have an empty ports list.",
    ),
    string(
        "Endpoints",
        "endpoints is a list of unique endpoints in this slice. Each slice may include a maximum of 1000 endpoints.",
    ),
    AGE,
];

pub(super) const MUTATINGWEBHOOKCONFIGURATIONS: &[Column] =
    &[NAME, integer("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"), AGE];

pub(super) const LEASES: &[Column] = &[
    NAME,
    string(
        "Holder",
        "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is \
         used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
    ),
    AGE,
];

pub(super) const DEPLOYMENTS: &[Column] = &[
    NAME,
    string("Ready", "Number of the pod with ready state"),
    string(
        "Up-to-date",
        "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
    ),
    string(
        "Available",
        "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this \
         deployment.",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    wide(
        "Selector",
        "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by \
         this deployment. It must match the pod template's labels.",
    ),
];

pub(super) const REPLICASETS: &[Column] = &[
    NAME,
    integer(
        "Desired",
        "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and \
         unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    integer(
        "Current",
        "Replicas is the most recently observed number of non-terminating pods. More info: \
         https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    integer("Ready", "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition."),
    AGE,
    CONTAINERS,
    IMAGES,
    wide(
        "Selector",
        "Selector is a label query over pods that should match the replica count. Label keys and values that must \
         match in order to be controlled by this replica set. It must match the pod template's labels. More info: \
         https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

pub(super) const STATEFULSETS: &[Column] =
    &[NAME, string("Ready", "Number of the pod with ready state"), AGE, CONTAINERS, IMAGES];

pub(super) const DAEMONSETS: &[Column] = &[
    NAME,
    integer(
        "Desired",
        "The total number of nodes that should be running the daemon pod (including nodes correctly running the \
         daemon pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
    ),
    integer(
        "Current",
        "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More \
         info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
    ),
    integer(
        "Ready",
        "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon \
         pod running with a Ready Condition.",
    ),
    integer("Up-to-date", "The total number of nodes that are running updated daemon pod"),
    integer(
        "Available",
        "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running \
         and available (ready for at least spec.minReadySeconds)",
    ),
    string(
        "Node Selector",
        "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a \
         node's labels for the pod to be scheduled on that node. More info: \
         https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    wide(
        "Selector",
        "A label query over pods that are managed by the daemon set. Must match in order to be controlled. It must \
         match the pod template's labels. More info: \
         https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

pub(super) const JOBS: &[Column] = &[
    NAME,
    string("Status", "Status of the job."),
    string(
        "Completions",
        "The number of pods which reached phase Succeeded. The value increases monotonically for a given spec. \
         However, it may decrease in reaction to scale down of elastic indexed jobs.",
    ),
    string("Duration", "Time required to complete the job."),
    AGE,
    CONTAINERS,
    IMAGES,
    wide(
        "Selector",
        "A label query over pods that should match the pod count. Normally, the system sets this field for you. More \
         info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

pub(super) const INGRESSES: &[Column] = &[
    NAME,
    string("Class", "The name of the IngressClass resource that should be used for additional configuration"),
    string("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
    string("Address", "Address is a list containing ingress points for the load-balancer"),
    string("Ports", "Ports of TLS configurations that open"),
    AGE,
];

pub(super) const ROLEBINDINGS: &[Column] = &[
    NAME,
    string(
        "Role",
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the \
         RoleRef cannot be resolved, the Authorizer must return an error.",
    ),
    AGE,
    wide("Users", "Users in the roleBinding"),
    wide("Groups", "Groups in the roleBinding"),
    wide("ServiceAccounts", "ServiceAccounts in the roleBinding"),
];

pub(super) const CLUSTERROLEBINDINGS: &[Column] = &[
    NAME,
    string(
        "Role",
        "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the \
         Authorizer must return an error.",
    ),
    AGE,
    wide("Users", "Users in the clusterRoleBinding"),
    wide("Groups", "Groups in the clusterRoleBinding"),
    wide("ServiceAccounts", "ServiceAccounts in the clusterRoleBinding"),
];
