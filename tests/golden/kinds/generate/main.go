// Command generate reads a running kube-apiserver and the Go types of its API and writes what the embedded server
// knows of the built-in kinds: kinds.json, shapes.json.gz, openapi/*.json.gz, and golden/protobuf.json.gz. With -golden it also sends the cases
// of cases.json to the server and writes its normalised answers.
//
//	cd tests/golden/kinds/generate && go run . -kubeconfig FILE -out ../../../../src/apiserver/kinds [-golden]
//
// Use a server that is not in use by others, such as that of `suites --serve DIR`, which writes the kubeconfig. Objects
// other than its cases' own are never changed. What is written is the same for the same version, but for the order of
// faults that Go finds in maps.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// wanted is the list of kinds, and what no answer of the server tells: whether objects have metadata.generation, and
// the fields that they can be selected by beside name and namespace (pkg/apis/*/v1/conversion.go, v1.36.3).
// createdByUpdate and conditionalUpdate are the strategies' AllowCreateOnUpdate and not AllowUnconditionalUpdate.
var wanted = []struct {
	group, version, plural string
	generation             bool
	selectable             []string
}{
	{"", "v1", "namespaces", false, []string{"status.phase"}},
	{"", "v1", "configmaps", false, nil},
	{"", "v1", "secrets", false, []string{"type"}},
	{"", "v1", "services", false, []string{"spec.clusterIP", "spec.type"}},
	{"", "v1", "serviceaccounts", false, nil},
	{"", "v1", "pods", true, []string{"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
		"spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName"}},
	{"", "v1", "events", false, []string{"involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
		"involvedObject.uid", "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
		"reason", "reportingComponent", "source", "type"}},
	{"", "v1", "persistentvolumeclaims", false, nil},
	{"apps", "v1", "deployments", true, nil},
	{"apps", "v1", "replicasets", true, nil},
	{"apps", "v1", "statefulsets", true, nil},
	{"apps", "v1", "daemonsets", true, nil},
	{"apps", "v1", "controllerrevisions", false, nil},
	{"batch", "v1", "jobs", true, []string{"status.successful"}},
	{"networking.k8s.io", "v1", "ingresses", true, nil},
	{"discovery.k8s.io", "v1", "endpointslices", true, nil},
	{"coordination.k8s.io", "v1", "leases", false, nil},
	{"events.k8s.io", "v1", "events", false, []string{"reason", "regarding.kind", "regarding.namespace", "regarding.name",
		"regarding.uid", "regarding.apiVersion", "regarding.resourceVersion", "regarding.fieldPath", "reportingController",
		"type"}},
	{"rbac.authorization.k8s.io", "v1", "roles", false, nil},
	{"rbac.authorization.k8s.io", "v1", "rolebindings", false, nil},
	{"rbac.authorization.k8s.io", "v1", "clusterroles", false, nil},
	{"rbac.authorization.k8s.io", "v1", "clusterrolebindings", false, nil},
	{"apiextensions.k8s.io", "v1", "customresourcedefinitions", true, nil},
	{"admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", true, nil},
}

var createdByUpdate = []string{"services", "events", "leases", "roles", "rolebindings", "clusterroles", "clusterrolebindings"}

var conditionalUpdate = []string{"leases", "customresourcedefinitions", "mutatingwebhookconfigurations"}

type column struct {
	Name        string `json:"name"`
	Type        string `json:"type"`
	Format      string `json:"format"`
	Description string `json:"description"`
	Priority    int    `json:"priority"`
}

type kind struct {
	Group              string   `json:"group"`
	Version            string   `json:"version"`
	Plural             string   `json:"plural"`
	Singular           string   `json:"singular"`
	Kind               string   `json:"kind"`
	Namespaced         bool     `json:"namespaced"`
	ShortNames         []string `json:"shortNames"`
	Categories         []string `json:"categories"`
	Verbs              []string `json:"verbs"`
	Subresources       []string `json:"subresources"`
	Generation         bool     `json:"generation"`
	Selectable         []string `json:"selectable"`
	StorageVersionHash string   `json:"storageVersionHash"`
	CreatedByUpdate    bool     `json:"createdByUpdate"`
	ConditionalUpdate  bool     `json:"conditionalUpdate"`
	Schema             string   `json:"schema"`
	Type               string   `json:"type"`
	Columns            []column `json:"columns"`
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "administrator's kubeconfig, as JSON, with a token")
	out := flag.String("out", "", "folder to write to")
	golden := flag.Bool("golden", false, "also record the answers to cases.json")
	flag.Parse()
	server, err := connect(*kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	if err := generate(server, *out); err != nil {
		log.Fatal(err)
	}
	if *golden {
		if err := record(server, "cases.json", filepath.Join(*out, "golden")); err != nil {
			log.Fatal(err)
		}
	}
}

// server is a kube-apiserver, spoken to as its administrator.
type server struct {
	address, token string
	client         *http.Client
}

func connect(path string) (*server, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				CA     string `json:"certificate-authority"`
				Server string `json:"server"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Token string `json:"token"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, fmt.Errorf("%s: must be JSON, as `suites --serve` writes it: %w", path, err)
	}
	if len(config.Clusters) == 0 || len(config.Users) == 0 {
		return nil, fmt.Errorf("%s: no cluster or no user", path)
	}
	ca, err := os.ReadFile(config.Clusters[0].Cluster.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	return &server{config.Clusters[0].Cluster.Server, config.Users[0].User.Token, &http.Client{Transport: transport}}, nil
}

type answer struct {
	code     int
	warnings []string
	body     []byte
}

func (s *server) do(verb, path, contentType, accept string, body []byte) (answer, error) {
	request, err := http.NewRequest(verb, s.address+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	request.Header.Set("Accept", accept)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header.Values("Warning"), text}, err
}

func (s *server) get(path, accept string, into any) error {
	answer, err := s.do("GET", path, "", accept, nil)
	if err != nil {
		return err
	}
	if answer.code != http.StatusOK {
		return fmt.Errorf("GET %s: %d %s", path, answer.code, answer.body)
	}
	decoder := json.NewDecoder(bytes.NewReader(answer.body))
	decoder.UseNumber()
	return decoder.Decode(into)
}

func groupVersion(group, version string) string {
	if group == "" {
		return version
	}
	return group + "/" + version
}

func root(group, version string) string {
	if group == "" {
		return "/api/" + version
	}
	return "/apis/" + group + "/" + version
}

func generate(s *server, out string) error {
	var version struct {
		GitVersion string `json:"gitVersion"`
	}
	if err := s.get("/version", "application/json", &version); err != nil {
		return err
	}
	var kinds []kind
	documents := map[string]map[string]any{}
	for _, want := range wanted {
		at := root(want.group, want.version)
		one, err := describe(s, at, want.plural)
		if err != nil {
			return fmt.Errorf("%s/%s: %w", at, want.plural, err)
		}
		one.Group, one.Version = want.group, want.version
		one.Generation, one.Selectable = want.generation, want.selectable
		one.CreatedByUpdate = slices.Contains(createdByUpdate, want.plural)
		one.ConditionalUpdate = slices.Contains(conditionalUpdate, want.plural)
		gv := groupVersion(want.group, want.version)
		if documents[gv] == nil {
			document := map[string]any{}
			if err := s.get("/openapi/v3"+at, "application/json", &document); err != nil {
				return err
			}
			documents[gv] = document
		}
		if one.Schema, err = schemaOf(documents[gv], want.group, want.version, one.Kind); err != nil {
			return err
		}
		if one.Type, err = typeOf(gv, one.Kind); err != nil {
			return err
		}
		kinds = append(kinds, one)
	}
	if err := os.MkdirAll(filepath.Join(out, "openapi"), 0o755); err != nil {
		return err
	}
	for gv, document := range documents {
		reduce(document, kinds, gv)
		document["info"].(map[string]any)["x-generated-from"] = version.GitVersion
		name := strings.ReplaceAll(gv, "/", "_") + ".json.gz"
		if err := writeCompressed(filepath.Join(out, "openapi", name), document); err != nil {
			return err
		}
	}
	if err := writeCompressed(filepath.Join(out, "shapes.json.gz"), shapes()); err != nil {
		return err
	}
	filled, err := filledObjects()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(out, "golden"), 0o755); err != nil {
		return err
	}
	if err := writeCompressed(filepath.Join(out, "golden", "protobuf.json.gz"), filled); err != nil {
		return err
	}
	file := map[string]any{"generatedFrom": version.GitVersion, "kinds": kinds}
	text, err := json.MarshalIndent(file, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "kinds.json"), append(text, '\n'), 0o644)
}

// describe takes from discovery and from an empty Table what they say of a kind.
func describe(s *server, at, plural string) (kind, error) {
	var list struct {
		Resources []struct {
			Name               string
			SingularName       string
			Namespaced         bool
			Kind               string
			Verbs              []string
			ShortNames         []string
			Categories         []string
			StorageVersionHash string
		}
	}
	if err := s.get(at, "application/json", &list); err != nil {
		return kind{}, err
	}
	one := kind{Plural: plural}
	for _, r := range list.Resources {
		switch {
		case r.Name == plural:
			one.Singular, one.Kind, one.Namespaced, one.Verbs = r.SingularName, r.Kind, r.Namespaced, r.Verbs
			one.ShortNames, one.Categories, one.StorageVersionHash = r.ShortNames, r.Categories, r.StorageVersionHash
		case r.Name == plural+"/status" || r.Name == plural+"/scale":
			one.Subresources = append(one.Subresources, strings.TrimPrefix(r.Name, plural+"/"))
		}
	}
	if one.Kind == "" {
		return kind{}, fmt.Errorf("not served")
	}
	var table struct {
		ColumnDefinitions []column
	}
	accept := "application/json;as=Table;v=v1;g=meta.k8s.io"
	if err := s.get(at+"/"+plural+"?limit=1", accept, &table); err != nil {
		return kind{}, err
	}
	one.Columns = table.ColumnDefinitions
	return one, nil
}

func writeCompressed(path string, value any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	var packed bytes.Buffer
	writer, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := writer.Write(text.Bytes()); err != nil {
		return err
	}
	if err := writer.Close(); err != nil {
		return err
	}
	fmt.Printf("%s: %d bytes, packed %d\n", path, text.Len(), packed.Len())
	return os.WriteFile(path, packed.Bytes(), 0o644)
}
