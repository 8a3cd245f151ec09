// Describes the Go types of the served kinds: what encoding/json makes of them, which no OpenAPI document tells.

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var roots = map[string]any{
	"v1 Namespace":                                     corev1.Namespace{},
	"v1 ConfigMap":                                     corev1.ConfigMap{},
	"v1 Secret":                                        corev1.Secret{},
	"v1 Service":                                       corev1.Service{},
	"v1 ServiceAccount":                                corev1.ServiceAccount{},
	"v1 Pod":                                           corev1.Pod{},
	"v1 Event":                                         corev1.Event{},
	"v1 PersistentVolumeClaim":                         corev1.PersistentVolumeClaim{},
	"apps/v1 Deployment":                               appsv1.Deployment{},
	"apps/v1 ReplicaSet":                               appsv1.ReplicaSet{},
	"apps/v1 StatefulSet":                              appsv1.StatefulSet{},
	"apps/v1 DaemonSet":                                appsv1.DaemonSet{},
	"apps/v1 ControllerRevision":                       appsv1.ControllerRevision{},
	"autoscaling/v1 Scale":                             autoscalingv1.Scale{},
	"batch/v1 Job":                                     batchv1.Job{},
	"networking.k8s.io/v1 Ingress":                     networkingv1.Ingress{},
	"discovery.k8s.io/v1 EndpointSlice":                discoveryv1.EndpointSlice{},
	"coordination.k8s.io/v1 Lease":                     coordinationv1.Lease{},
	"events.k8s.io/v1 Event":                           eventsv1.Event{},
	"rbac.authorization.k8s.io/v1 Role":                rbacv1.Role{},
	"rbac.authorization.k8s.io/v1 RoleBinding":         rbacv1.RoleBinding{},
	"rbac.authorization.k8s.io/v1 ClusterRole":         rbacv1.ClusterRole{},
	"rbac.authorization.k8s.io/v1 ClusterRoleBinding":  rbacv1.ClusterRoleBinding{},
	"apiextensions.k8s.io/v1 CustomResourceDefinition": apiextensionsv1.CustomResourceDefinition{},
	"admissionregistration.k8s.io/v1 MutatingWebhookConfiguration": admissionregistrationv1.MutatingWebhookConfiguration{},
	"v1 DeleteOptions":                                metav1.DeleteOptions{},
	"authentication.k8s.io/v1 SelfSubjectReview":      authenticationv1.SelfSubjectReview{},
	"authorization.k8s.io/v1 SubjectAccessReview":     authorizationv1.SubjectAccessReview{},
	"authorization.k8s.io/v1 SelfSubjectAccessReview": authorizationv1.SelfSubjectAccessReview{},
	"authorization.k8s.io/v1 SelfSubjectRulesReview":  authorizationv1.SelfSubjectRulesReview{},
}

// shape is a named Go type.
type shape struct {
	// string, bool, int32, ..., struct, map[...], []...; "custom" if it unmarshals itself.
	Kind   string  `json:"kind"`
	Fields []field `json:"fields,omitempty"`
}

type field struct {
	Name string `json:"name"`
	Type string `json:"type"`
	// "empty" for omitempty, "zero" for omitzero
	Omit []string `json:"omit,omitempty"`
	// Names of the embedded structs that it comes through.
	Through []string `json:"through,omitempty"`
	// Its number in protobuf, behind those of the embedded structs that are messages of their own.
	Number []int `json:"number,omitempty"`
}

func typeOf(gv, kind string) (string, error) {
	root, ok := roots[gv+" "+kind]
	if !ok {
		return "", fmt.Errorf("no Go type of %s %s", gv, kind)
	}
	return expression(reflect.TypeOf(root)), nil
}

// expression is a Go type expression with full package paths.
func expression(t reflect.Type) string {
	if t.Name() != "" {
		if t.PkgPath() == "" {
			return t.Name()
		}
		return t.PkgPath() + "." + t.Name()
	}
	switch t.Kind() {
	case reflect.Pointer:
		return "*" + expression(t.Elem())
	case reflect.Slice:
		return "[]" + expression(t.Elem())
	case reflect.Map:
		return "map[" + expression(t.Key()) + "]" + expression(t.Elem())
	default:
		panic("unexpected type " + t.String())
	}
}

func sortedRoots() []string {
	return slices.Sorted(maps.Keys(roots))
}

func shapes() map[string]shape {
	all := map[string]shape{}
	for _, root := range roots {
		addShape(reflect.TypeOf(root), all)
	}
	return all
}

func addShape(t reflect.Type, all map[string]shape) {
	if t.Name() == "" {
		if t.Kind() == reflect.Map {
			addShape(t.Key(), all)
		}
		addShape(t.Elem(), all)
		return
	}
	if t.PkgPath() == "" {
		return
	}
	name := expression(t)
	if _, done := all[name]; done {
		return
	}
	one := shape{}
	all[name] = one
	_, itself := reflect.New(t).Interface().(json.Unmarshaler)
	switch {
	case itself:
		one.Kind = "custom"
		// Some hold other shapes.
		if t.Kind() == reflect.Struct {
			for i := range t.NumField() {
				if f := t.Field(i); strings.HasPrefix(f.Type.String(), "*v1.") || strings.HasPrefix(f.Type.String(), "[]v1.") {
					addShape(f.Type, all)
				}
			}
		}
	case t.Kind() == reflect.Struct:
		one.Kind = "struct"
		one.Fields = fields(t, nil, nil, all)
	case t.Kind() == reflect.Map:
		one.Kind = "map[" + expression(t.Key()) + "]" + expression(t.Elem())
		addShape(t.Key(), all)
		addShape(t.Elem(), all)
	case t.Kind() == reflect.Slice:
		one.Kind = "[]" + expression(t.Elem())
		addShape(t.Elem(), all)
	default:
		one.Kind = t.Kind().String()
	}
	all[name] = one
}

func fields(t reflect.Type, through []string, numbers []int, all map[string]shape) []field {
	var list []field
	for i := range t.NumField() {
		f := t.Field(i)
		tag := strings.Split(f.Tag.Get("json"), ",")
		if tag[0] == "-" || !f.IsExported() {
			continue
		}
		if f.Anonymous && tag[0] == "" {
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			deeper := append(append([]string{}, through...), f.Name)
			embedded := fields(inner, deeper, number(f, numbers), all)
			if f.Tag.Get("protobuf") == "" {
				// TypeMeta: protobuf has it in the envelope.
				for i := range embedded {
					embedded[i].Number = nil
				}
			}
			list = append(list, embedded...)
			continue
		}
		one := field{Name: tag[0], Type: expression(f.Type), Through: through}
		if f.Tag.Get("protobuf") != "" {
			one.Number = number(f, numbers)
		}
		if one.Name == "" {
			one.Name = f.Name
		}
		for _, option := range tag[1:] {
			if after, ok := strings.CutPrefix(option, "omit"); ok {
				one.Omit = append(one.Omit, after)
			}
		}
		addShape(f.Type, all)
		list = append(list, one)
	}
	return list
}

// number is the path of numbers to a field: those before, and its own if it is a field of a message.
func number(f reflect.StructField, before []int) []int {
	parts := strings.Split(f.Tag.Get("protobuf"), ",")
	if len(parts) < 2 {
		return before
	}
	own, err := strconv.Atoi(parts[1])
	if err != nil {
		panic(f.Name + ": " + err.Error())
	}
	return append(append([]int{}, before...), own)
}
