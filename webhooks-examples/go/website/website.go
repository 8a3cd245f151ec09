// The example: which children a Website wants, and its status. Edit this file.
// Never does I/O, keeps no state between calls.

package main

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
)

// shippedThemes are used while neither --themes nor related Theme objects in a request say others.
var shippedThemes = object{
	{"dark", object{{"color", "#1e1e2e"}, {"fontFamily", "Inter, sans-serif"}}},
	{"light", object{{"color", "#fafafa"}, {"fontFamily", "Georgia, serif"}}},
	{"solarized", object{{"color", "#fdf6e3"}, {"fontFamily", "Menlo, monospace"}}},
}

const (
	themeKind      = "Theme.example.ringmaster.dev/v1"
	deploymentKind = "Deployment.apps/v1"
	// A Website that has this label, whatever its value, gets a Deployment of no replicas.
	skipWorkload = "skip-workload"
	// Listens on 8080 and runs as any user.
	image = "nginxinc/nginx-unprivileged:1.27-alpine"
	port  = 8080
)

// childKinds are the kinds of a Website's children, as keys of `children` in a request.
var childKinds = []string{"ConfigMap.v1", "Service.v1", deploymentKind}

// lastAppliedKeys are where the last desired form of a child is recorded, by the API group of the controller.
var lastAppliedKeys = []string{
	"ringmaster.dev/last-applied-configuration",
	"metacontroller.k8s.io/last-applied-configuration",
}

// serverMetadata is what the API server writes into metadata: not ours to say.
var serverMetadata = []string{
	"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
	"deletionGracePeriodSeconds", "managedFields", "selfLink", "ownerReferences", "finalizers",
}

// unsafeCSS: themes come from people, so nothing that could end the style element or the rule may pass.
var unsafeCSS = regexp.MustCompile(`[^\pL\pN_#%(),.' -]`)

// htmlEscaper writes entities as Python's html.escape does.
var htmlEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#x27;")

// badRequest: the request isn't a hook request. The text names the field and the fix.
type badRequest string

func (b badRequest) Error() string { return string(b) }

// website is what all children of one Website have from it.
type website struct{ name, namespace string }

// Sync is the desired children and the status of one Website. Pure: the same request and themes give the same reply.
// The error is a badRequest where the request has no usable parent, any other where a field has a type that no API
// server would let through.
func Sync(request, shipped object) (object, error) {
	parent, err := mapping(request, "parent", "")
	if err != nil {
		return nil, err
	}
	metadata, err := mapping(parent, "metadata", "parent.")
	if err != nil {
		return nil, err
	}
	spec, err := mapping(parent, "spec", "parent.")
	if err != nil {
		return nil, err
	}
	for _, field := range []string{"name", "namespace"} {
		if text, _ := metadata.get(field).(string); text == "" {
			return nil, badRequest("parent.metadata." + field + ": must be a non-empty string; send a namespaced Website")
		}
	}
	site := website{metadata.get("name").(string), metadata.get("namespace").(string)}
	observed, err := site.observedChildren(request)
	if err != nil {
		return nil, err
	}
	available, err := availableReplicas(observed)
	if err != nil {
		return nil, err
	}
	themes, err := knownThemes(request, shipped)
	if err != nil {
		return nil, err
	}

	var theme any
	name, isText := spec.get("theme").(string)
	if isText {
		theme = themes.get(name)
	}
	if theme == nil {
		message := fmt.Sprintf("spec.theme: unknown theme %s; known themes: %s", spaced(spec.get("theme")), names(themes))
		// A typo must not take a site down: every child stays exactly as it was last applied.
		children, err := allLastApplied(observed)
		return reply("Error", message, available, children), err
	}

	skip, err := contains(metadata.get("labels"), skipWorkload)
	if err != nil {
		return nil, fmt.Errorf("parent.metadata.labels: %w", err)
	}
	wanted := 1
	if skip {
		wanted = 0
	}
	title := spec.get("title")
	if !truthy(title) {
		title = site.name
	}
	data, err := page(python(title), theme)
	if err != nil {
		return nil, fmt.Errorf("theme %s: %w", name, err)
	}
	children := []any{site.configMap(data), site.service(), site.deployment(wanted, data)}

	var missing []string
	for _, kind := range childKinds {
		if observed.get(kind) == nil {
			missing = append(missing, strings.Split(kind, ".")[0])
		}
	}
	if len(missing) > 0 {
		return reply("Pending", "waiting for "+strings.Join(missing, ", "), available, children), nil
	}
	short, err := less(available, wanted)
	if err != nil {
		return nil, fmt.Errorf("availableReplicas: %w", err)
	}
	if short {
		message := fmt.Sprintf("%s of %d replicas available", python(available), wanted)
		return reply("Pending", message, available, children), nil
	}
	return reply("Ready", "serving with theme "+name, available, children), nil
}

// reply is a hook reply; `status.replicas` counts available replicas.
func reply(phase, message string, available any, children []any) object {
	status := object{{"phase", phase}, {"message", message}, {"replicas", available}}
	return object{{"status", status}, {"children", children}}
}

// mapping is outer[field], which must be an object.
func mapping(outer object, field, path string) (object, error) {
	value, ok := outer.get(field).(object)
	if !ok {
		return nil, badRequest(path + field + ": must be an object; send a hook request of protocol v2")
	}
	return value, nil
}

// optional is outer[field] as an object, an empty one where the field is absent, null or empty.
func optional(outer object, field string) (object, error) {
	value := outer.get(field)
	if !truthy(value) {
		return nil, nil
	}
	inner, ok := value.(object)
	if !ok {
		return nil, fmt.Errorf("%s: not an object", field)
	}
	return inner, nil
}

// knownThemes are themes by name: the related Theme objects where the request brings them, else shipped.
func knownThemes(request, shipped object) (object, error) {
	related, err := optional(request, "related")
	if err != nil {
		return nil, err
	}
	value := related.get(themeKind)
	if value == nil {
		return shipped, nil
	}
	objects, ok := value.(object)
	if !ok {
		return nil, fmt.Errorf("related.%s: not an object", themeKind)
	}
	themes := object{}
	for _, named := range objects {
		theme, ok := named.value.(object)
		if !ok {
			return nil, fmt.Errorf("related.%s.%s: not an object", themeKind, named.key)
		}
		spec := theme.get("spec")
		if !truthy(spec) {
			spec = object{}
		}
		themes = append(themes, field{named.key, spec})
	}
	return themes, nil
}

// names lists themes by code point.
func names(themes object) string {
	list := make([]string, len(themes))
	for i, theme := range themes {
		list[i] = theme.key
	}
	slices.Sort(list)
	return cmp.Or(strings.Join(list, ", "), "none")
}

// observedChildren are the Website's observed children by kind: all three have its name and namespace.
func (w website) observedChildren(request object) (object, error) {
	children, err := optional(request, "children")
	if err != nil {
		return nil, err
	}
	observed := object{}
	for _, kind := range childKinds {
		ofKind, err := optional(children, kind)
		if err != nil {
			return nil, err
		}
		if child := ofKind.get(w.namespace + "/" + w.name); truthy(child) {
			observed = append(observed, field{kind, child})
		}
	}
	return observed, nil
}

// availableReplicas is what the Deployment's status says: a number, in a request from a real API server.
func availableReplicas(observed object) (any, error) {
	deployment, err := optional(observed, deploymentKind)
	if err != nil {
		return nil, err
	}
	status, err := optional(deployment, "status")
	if err != nil {
		return nil, err
	}
	if available := status.get("availableReplicas"); truthy(available) {
		return available, nil
	}
	return 0, nil
}

// less is value < limit for a number, or a bool, which counts as 0 or 1.
func less(value any, limit int) (bool, error) {
	switch value := value.(type) {
	case bool:
		return !value && limit > 0, nil
	case int:
		return value < limit, nil
	case *big.Int:
		return value.Cmp(big.NewInt(int64(limit))) < 0, nil
	case float64:
		return value < float64(limit), nil
	}
	return false, fmt.Errorf("%s is not a number", spaced(value))
}

// contains says whether value has key; for an array, whether it is an item, for a string, a part.
func contains(value any, key string) (bool, error) {
	switch value := value.(type) {
	case object:
		_, has := value.find(key)
		return has, nil
	case []any:
		return slices.ContainsFunc(value, func(item any) bool { text, _ := item.(string); return text == key }), nil
	case string:
		return strings.Contains(value, key), nil
	}
	if truthy(value) {
		return false, fmt.Errorf("%s is not an object", spaced(value))
	}
	return false, nil
}

func allLastApplied(observed object) ([]any, error) {
	children := []any{}
	for _, child := range observed {
		applied, err := lastApplied(child.value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", child.key, err)
		}
		children = append(children, applied)
	}
	return children, nil
}

// lastApplied is what was last desired of an observed child: desiring it again changes nothing.
// A child without that record (adopted, or applied server-side) is restated as observed, without the fields that the
// API server writes.
func lastApplied(child any) (object, error) {
	observed, _ := child.(object)
	metadata, ok := observed.get("metadata").(object)
	if !ok {
		return nil, fmt.Errorf("an observed child without metadata")
	}
	annotations, err := optional(metadata, "annotations")
	if err != nil {
		return nil, err
	}
	for _, key := range lastAppliedKeys {
		value, has := annotations.find(key)
		if !has {
			continue
		}
		text, ok := value.(string)
		if !ok {
			return nil, fmt.Errorf("annotation %s: not a string", key)
		}
		if recorded, err := parse([]byte(text)); err == nil {
			if recorded, ok := recorded.(object); ok {
				return recorded, nil
			}
		}
	}
	kept := object{}
	for _, part := range observed {
		switch part.key {
		case "status":
		case "metadata":
			kept = append(kept, field{"metadata", withoutServerFields(metadata)})
		default:
			kept = append(kept, part)
		}
	}
	return kept, nil
}

func withoutServerFields(metadata object) object {
	kept := object{}
	for _, field := range metadata {
		if !slices.Contains(serverMetadata, field.key) {
			kept = append(kept, field)
		}
	}
	return kept
}

// labels are on every child and pod. Ringmaster adds controller-uid itself (generateSelector).
func (w website) labels() object {
	return object{{"app.kubernetes.io/name", "website"}, {"app.kubernetes.io/instance", w.name}}
}

// child has its Website's name and namespace; content is all beside its metadata.
func (w website) child(apiVersion, kind string, content field) object {
	metadata := object{{"name", w.name}, {"namespace", w.namespace}, {"labels", w.labels()}}
	return object{{"apiVersion", apiVersion}, {"kind", kind}, {"metadata", metadata}, content}
}

// page is the data of the ConfigMap.
func page(title string, theme any) (object, error) {
	values, ok := theme.(object)
	if !ok {
		return nil, fmt.Errorf("%s is not an object", spaced(theme))
	}
	css := func(field string) string {
		if value := values.get(field); truthy(value) {
			return unsafeCSS.ReplaceAllLiteralString(python(value), "")
		}
		return ""
	}
	heading := htmlEscaper.Replace(title)
	html := "<!doctype html>\n" +
		`<html><head><meta charset="utf-8"><title>` + heading + "</title>\n" +
		"<style>body { background: " + css("color") + "; font-family: " + css("fontFamily") + "; }</style></head>\n" +
		"<body><h1>" + heading + "</h1></body></html>\n"
	return object{{"index.html", html}}, nil
}

func (w website) configMap(data object) object {
	return w.child("v1", "ConfigMap", field{"data", data})
}

func (w website) service() object {
	ports := []any{object{{"name", "http"}, {"port", 80}, {"targetPort", port}, {"protocol", "TCP"}}}
	return w.child("v1", "Service", field{"spec", object{
		{"clusterIP", "None"},
		{"selector", w.labels()},
		{"ports", ports},
	}})
}

func (w website) deployment(replicas int, data object) object {
	// The checksum makes a new page a new pod template: pods roll when the page changes.
	checksum := fmt.Sprintf("%x", sha256.Sum256([]byte(spaced(data))))
	container := object{
		{"name", "nginx"},
		{"image", image},
		{"ports", []any{object{{"name", "http"}, {"containerPort", port}, {"protocol", "TCP"}}}},
		{"readinessProbe", object{{"httpGet", object{{"path", "/"}, {"port", port}}}}},
		{"resources", object{
			{"requests", object{{"cpu", "10m"}, {"memory", "16Mi"}}},
			{"limits", object{{"memory", "64Mi"}}},
		}},
		{"securityContext", object{
			{"allowPrivilegeEscalation", false},
			{"readOnlyRootFilesystem", true},
			{"capabilities", object{{"drop", []any{"ALL"}}}},
		}},
		{"volumeMounts", []any{
			object{{"name", "page"}, {"mountPath", "/usr/share/nginx/html"}, {"readOnly", true}},
			object{{"name", "tmp"}, {"mountPath", "/tmp"}},
		}},
	}
	pod := object{
		{"automountServiceAccountToken", false},
		{"securityContext", object{{"runAsNonRoot", true}, {"seccompProfile", object{{"type", "RuntimeDefault"}}}}},
		{"containers", []any{container}},
		{"volumes", []any{
			object{{"name", "page"}, {"configMap", object{{"name", w.name}}}},
			object{{"name", "tmp"}, {"emptyDir", object{}}},
		}},
	}
	template := object{
		{"metadata", object{
			{"labels", w.labels()},
			{"annotations", object{{"example.ringmaster.dev/page-checksum", checksum}}},
		}},
		{"spec", pod},
	}
	return w.child("apps/v1", "Deployment", field{"spec", object{
		{"replicas", replicas},
		{"selector", object{{"matchLabels", w.labels()}}},
		{"template", template},
	}})
}
