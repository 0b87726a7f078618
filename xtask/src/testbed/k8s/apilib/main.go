// An API server of Kubernetes' own libraries, as Debian has them: apiserver and apiextensions-apiserver.
//
// Real: HTTP, discovery, storage in etcd, resource versions, the watch cache, bookmarks, streaming lists, 410, selectors, patches,
// server-side apply, graceful deletion, custom resources, authentication, exec over WebSocket v5.
// Made here: defaults, validation and strategies of the types, the rights of users outside of system:masters, and scheduling: a pod of the
// default scheduler gets the node of -default-node at once; another one is bound by a client. No controllers, no admission.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
	crdv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	crdoptions "k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	crdopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/httpstream/wsstream"
	utilproxy "k8s.io/apimachinery/pkg/util/proxy"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	authzunion "k8s.io/apiserver/pkg/authorization/union"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	genericrest "k8s.io/apiserver/pkg/registry/generic/rest"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	apistorage "k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	translator "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/kube-openapi/pkg/common"

	noopoteltrace "go.opentelemetry.io/otel/trace/noop"

	generated "runtide/k8s-apilib/openapi"
)

var (
	port        = flag.Int("secure-port", 6443, "")
	etcd        = flag.String("etcd-servers", "http://127.0.0.1:2379", "")
	pki         = flag.String("pki", "", "folder with certificates, keys and tokens.csv")
	defaultNode = flag.String("default-node", "127.0.0.1", "node of a pod created without one; empty: none")
	translate   = flag.Bool("exec-translate", true, "exec over WebSocket v5 becomes SPDY towards the kubelet (kube-apiserver 1.30 and later); false: passed on as it is")
	allow       = flag.String("allow", "", "USER=NAMESPACE[,...]: the user may read everything there, and nothing elsewhere")

	scheme = runtime.NewScheme()
	codecs = serializer.NewCodecFactory(scheme)
	groups = []func(*runtime.Scheme) error{corev1.AddToScheme, coordv1.AddToScheme, storagev1.AddToScheme, nodev1.AddToScheme, eventsv1.AddToScheme}
)

// kind is one resource.
type kind struct {
	gv         schema.GroupVersion
	resource   string
	singular   string
	obj, list  runtime.Object
	namespaced bool
	status     bool
}

var kinds = []kind{
	{corev1.SchemeGroupVersion, "pods", "pod", &corev1.Pod{}, &corev1.PodList{}, true, true},
	{corev1.SchemeGroupVersion, "namespaces", "namespace", &corev1.Namespace{}, &corev1.NamespaceList{}, false, true},
	{corev1.SchemeGroupVersion, "nodes", "node", &corev1.Node{}, &corev1.NodeList{}, false, true},
	{corev1.SchemeGroupVersion, "events", "event", &corev1.Event{}, &corev1.EventList{}, true, false},
	{corev1.SchemeGroupVersion, "configmaps", "configmap", &corev1.ConfigMap{}, &corev1.ConfigMapList{}, true, false},
	{corev1.SchemeGroupVersion, "secrets", "secret", &corev1.Secret{}, &corev1.SecretList{}, true, false},
	{corev1.SchemeGroupVersion, "services", "service", &corev1.Service{}, &corev1.ServiceList{}, true, true},
	{corev1.SchemeGroupVersion, "serviceaccounts", "serviceaccount", &corev1.ServiceAccount{}, &corev1.ServiceAccountList{}, true, false},
	{coordv1.SchemeGroupVersion, "leases", "lease", &coordv1.Lease{}, &coordv1.LeaseList{}, true, false},
	{eventsv1.SchemeGroupVersion, "events", "event", &eventsv1.Event{}, &eventsv1.EventList{}, true, false},
	{storagev1.SchemeGroupVersion, "csinodes", "csinode", &storagev1.CSINode{}, &storagev1.CSINodeList{}, false, false},
	{storagev1.SchemeGroupVersion, "csidrivers", "csidriver", &storagev1.CSIDriver{}, &storagev1.CSIDriverList{}, false, false},
	{nodev1.SchemeGroupVersion, "runtimeclasses", "runtimeclass", &nodev1.RuntimeClass{}, &nodev1.RuntimeClassList{}, false, false},
}

func init() {
	// The external types serve as the internal ones too: same Go type, so no conversion happens.
	for _, add := range groups {
		utilruntime.Must(add(scheme))
	}
	for gvk, t := range scheme.AllKnownTypes() {
		if gvk.Version == runtime.APIVersionInternal || !strings.HasPrefix(t.PkgPath(), "k8s.io/api/") {
			continue
		}
		if gvk.Version == "v1" {
			scheme.AddKnownTypeWithName(schema.GroupVersionKind{Group: gvk.Group, Version: runtime.APIVersionInternal, Kind: gvk.Kind}, reflect.New(t).Interface().(runtime.Object))
		}
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	utilruntime.Must(scheme.AddFieldLabelConversionFunc(corev1.SchemeGroupVersion.WithKind("Pod"), func(l, v string) (string, string, error) {
		switch l {
		case "metadata.name", "metadata.namespace", "spec.nodeName", "status.phase", "spec.restartPolicy", "status.podIP":
			return l, v, nil
		case "spec.host":
			return "spec.nodeName", v, nil
		}
		return "", "", fmt.Errorf("field label not supported: %s", l)
	}))
	for _, gv := range []schema.GroupVersion{corev1.SchemeGroupVersion, eventsv1.SchemeGroupVersion} {
		utilruntime.Must(scheme.AddFieldLabelConversionFunc(gv.WithKind("Event"), func(l, v string) (string, string, error) { return l, v, nil }))
	}
	utilruntime.Must(scheme.AddConversionFunc((*url.Values)(nil), (*corev1.PodExecOptions)(nil), func(a, b interface{}, _ conversion.Scope) error {
		q, o := *a.(*url.Values), b.(*corev1.PodExecOptions)
		o.Stdin, o.Stdout, o.Stderr, o.TTY = yes(q, "stdin"), yes(q, "stdout"), yes(q, "stderr"), yes(q, "tty")
		o.Container, o.Command = q.Get("container"), q["command"]
		return nil
	}))
	utilruntime.Must(scheme.AddConversionFunc((*url.Values)(nil), (*corev1.PodAttachOptions)(nil), func(a, b interface{}, _ conversion.Scope) error {
		q, o := *a.(*url.Values), b.(*corev1.PodAttachOptions)
		o.Stdin, o.Stdout, o.Stderr, o.TTY, o.Container = yes(q, "stdin"), yes(q, "stdout"), yes(q, "stderr"), yes(q, "tty"), q.Get("container")
		return nil
	}))
	utilruntime.Must(scheme.AddConversionFunc((*url.Values)(nil), (*corev1.PodLogOptions)(nil), func(a, b interface{}, _ conversion.Scope) error {
		q, o := *a.(*url.Values), b.(*corev1.PodLogOptions)
		o.Container, o.Follow, o.Previous, o.Timestamps = q.Get("container"), yes(q, "follow"), yes(q, "previous"), yes(q, "timestamps")
		for k, p := range map[string]**int64{"tailLines": &o.TailLines, "limitBytes": &o.LimitBytes, "sinceSeconds": &o.SinceSeconds} {
			if v := q.Get(k); v != "" {
				n, err := strconv.ParseInt(v, 10, 64)
				if err != nil {
					return err
				}
				*p = &n
			}
		}
		if v := q.Get("sinceTime"); v != "" {
			t, err := time.Parse(time.RFC3339, v)
			if err != nil {
				return err
			}
			o.SinceTime = &metav1.Time{Time: t}
		}
		return nil
	}))
}

func yes(q url.Values, k string) bool {
	v, ok := q[k]
	return ok && len(v) > 0 && v[0] != "false" && v[0] != "0"
}

// strategy of every resource: status is only written through /status, spec only through the object, a pod's node through /binding.
type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator
	k         kind
	onStatus  bool
	onBinding bool
}

func (s strategy) NamespaceScoped() bool { return s.k.namespaced }
func (s strategy) AllowCreateOnUpdate() bool {
	return s.k.resource == "leases" || s.k.resource == "events"
}
func (s strategy) AllowUnconditionalUpdate() bool                                   { return true }
func (s strategy) Canonicalize(runtime.Object)                                      {}
func (s strategy) WarningsOnCreate(context.Context, runtime.Object) []string        { return nil }
func (s strategy) WarningsOnUpdate(_ context.Context, _, _ runtime.Object) []string { return nil }

func (s strategy) PrepareForCreate(_ context.Context, obj runtime.Object) {
	if s.k.status && s.k.resource != "nodes" {
		v := reflect.ValueOf(obj).Elem().FieldByName("Status")
		v.Set(reflect.Zero(v.Type()))
	}
	obj.(metav1.Object).SetGeneration(1)
	switch o := obj.(type) {
	case *corev1.Pod:
		o.Status.Phase, o.Status.QOSClass = corev1.PodPending, corev1.PodQOSBestEffort
		def := func(s *string, v string) {
			if *s == "" {
				*s = v
			}
		}
		def((*string)(&o.Spec.RestartPolicy), "Always")
		def((*string)(&o.Spec.DNSPolicy), "ClusterFirst")
		def(&o.Spec.SchedulerName, "default-scheduler")
		if o.Spec.SchedulerName == "default-scheduler" {
			def(&o.Spec.NodeName, *defaultNode)
		}
		if o.Spec.TerminationGracePeriodSeconds == nil {
			n := int64(30)
			o.Spec.TerminationGracePeriodSeconds = &n
		}
		if o.Spec.SecurityContext == nil {
			o.Spec.SecurityContext = &corev1.PodSecurityContext{}
		}
		if o.Spec.EnableServiceLinks == nil {
			f := true
			o.Spec.EnableServiceLinks = &f
		}
		for _, cs := range [][]corev1.Container{o.Spec.InitContainers, o.Spec.Containers} {
			for i := range cs {
				def(&cs[i].TerminationMessagePath, "/dev/termination-log")
				def((*string)(&cs[i].TerminationMessagePolicy), "File")
				def((*string)(&cs[i].ImagePullPolicy), "IfNotPresent")
				for _, r := range []corev1.ResourceList{cs[i].Resources.Limits} {
					for n, q := range r {
						if cs[i].Resources.Requests == nil {
							cs[i].Resources.Requests = corev1.ResourceList{}
						}
						if _, ok := cs[i].Resources.Requests[n]; !ok {
							cs[i].Resources.Requests[n] = q
						}
						o.Status.QOSClass = corev1.PodQOSBurstable
					}
				}
			}
		}
	case *corev1.Namespace:
		o.Status.Phase = corev1.NamespaceActive
	}
}

func (s strategy) Validate(_ context.Context, obj runtime.Object) field.ErrorList {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return nil
	}
	var errs field.ErrorList
	if len(p.Spec.Containers) == 0 {
		errs = append(errs, field.Required(field.NewPath("spec", "containers"), ""))
	}
	for i, c := range p.Spec.Containers {
		if c.Name == "" {
			errs = append(errs, field.Required(field.NewPath("spec", "containers").Index(i).Child("name"), ""))
		}
		if c.Image == "" {
			errs = append(errs, field.Required(field.NewPath("spec", "containers").Index(i).Child("image"), ""))
		}
	}
	return errs
}

func (s strategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	if !s.k.status || s.onBinding {
		return
	}
	n, o := reflect.ValueOf(obj).Elem(), reflect.ValueOf(old).Elem()
	if s.onStatus {
		n.FieldByName("Spec").Set(o.FieldByName("Spec"))
		obj.(metav1.Object).SetDeletionTimestamp(old.(metav1.Object).GetDeletionTimestamp())
		return
	}
	n.FieldByName("Status").Set(o.FieldByName("Status"))
}

func (s strategy) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	n, ok := obj.(*corev1.Pod)
	if !ok || s.onStatus || s.onBinding {
		return nil
	}
	a, b := n.Spec.DeepCopy(), old.(*corev1.Pod).Spec.DeepCopy() // immutable but for images, activeDeadlineSeconds, tolerations
	for i := range a.Containers {
		if i < len(b.Containers) {
			a.Containers[i].Image = b.Containers[i].Image
		}
	}
	a.ActiveDeadlineSeconds, a.Tolerations = b.ActiveDeadlineSeconds, b.Tolerations
	if !reflect.DeepEqual(a, b) {
		return field.ErrorList{field.Forbidden(field.NewPath("spec"), "pod updates may not change fields other than images, activeDeadlineSeconds, tolerations")}
	}
	return nil
}

// CheckGracefulDelete is that of pods; every other resource goes at once.
func (s strategy) CheckGracefulDelete(_ context.Context, obj runtime.Object, o *metav1.DeleteOptions) bool {
	p, ok := obj.(*corev1.Pod)
	if !ok || o == nil {
		return false
	}
	period := int64(0)
	if o.GracePeriodSeconds != nil {
		period = *o.GracePeriodSeconds
	} else if p.Spec.TerminationGracePeriodSeconds != nil {
		period = *p.Spec.TerminationGracePeriodSeconds
	}
	if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		period = 0
	}
	o.GracePeriodSeconds = &period
	return true
}

func attrs(obj runtime.Object) (labels.Set, fields.Set, error) {
	m := obj.(metav1.Object)
	f := fields.Set{"metadata.name": m.GetName(), "metadata.namespace": m.GetNamespace()}
	switch o := obj.(type) {
	case *corev1.Pod:
		f["spec.nodeName"], f["status.phase"], f["spec.restartPolicy"], f["status.podIP"] = o.Spec.NodeName, string(o.Status.Phase), string(o.Spec.RestartPolicy), o.Status.PodIP
	case *corev1.Event:
		f["involvedObject.kind"], f["involvedObject.name"], f["involvedObject.namespace"], f["involvedObject.uid"] = o.InvolvedObject.Kind, o.InvolvedObject.Name, o.InvolvedObject.Namespace, string(o.InvolvedObject.UID)
		f["reason"], f["type"] = o.Reason, o.Type
	}
	return labels.Set(m.GetLabels()), f, nil
}

type store struct{ *genericregistry.Store }

func (s *store) New() runtime.Object { return s.NewFunc() }
func (s *store) Destroy()            {}

// statusREST is /status: get, update and patch on the same rows.
type statusREST struct{ s *genericregistry.Store }

func (r *statusREST) New() runtime.Object { return r.s.NewFunc() }
func (r *statusREST) Destroy()            {}
func (r *statusREST) Get(ctx context.Context, n string, o *metav1.GetOptions) (runtime.Object, error) {
	return r.s.Get(ctx, n, o)
}
func (r *statusREST) Update(ctx context.Context, n string, i rest.UpdatedObjectInfo, c rest.ValidateObjectFunc, u rest.ValidateObjectUpdateFunc, _ bool, o *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return r.s.Update(ctx, n, i, c, u, false, o)
}

// bindREST is /binding: a pod without a node gets one.
type bindREST struct{ s *genericregistry.Store }

func (r *bindREST) New() runtime.Object { return &corev1.Binding{} }
func (r *bindREST) Destroy()            {}
func (r *bindREST) Create(ctx context.Context, name string, obj runtime.Object, _ rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	bind := func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		p := old.DeepCopyObject().(*corev1.Pod)
		if p.Spec.NodeName != "" || p.DeletionTimestamp != nil {
			return nil, apierrors.NewConflict(corev1.Resource("pods/binding"), name, fmt.Errorf("pod %s has a node, or is being deleted", name))
		}
		p.Spec.NodeName = obj.(*corev1.Binding).Target.Name
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
		return p, nil
	}
	_, _, err := r.s.Update(ctx, name, rest.DefaultUpdatedObjectInfo(nil, bind), rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	return &metav1.Status{Status: metav1.StatusSuccess}, err
}

func newStore(k kind, opts generic.RESTOptionsGetter) (*genericregistry.Store, *genericregistry.Store, error) {
	zero := func(o runtime.Object) func() runtime.Object {
		t := reflect.TypeOf(o).Elem()
		return func() runtime.Object { return reflect.New(t).Interface().(runtime.Object) }
	}
	st := strategy{scheme, names.SimpleNameGenerator, k, false, false}
	gr := schema.GroupResource{Group: k.gv.Group, Resource: k.resource}
	s := &genericregistry.Store{
		NewFunc: zero(k.obj), NewListFunc: zero(k.list), DefaultQualifiedResource: gr, SingularQualifiedResource: schema.GroupResource{Group: k.gv.Group, Resource: k.singular},
		PredicateFunc: func(l labels.Selector, f fields.Selector) apistorage.SelectionPredicate {
			return apistorage.SelectionPredicate{Label: l, Field: f, GetAttrs: attrs}
		},
		CreateStrategy: st, UpdateStrategy: st, DeleteStrategy: st, ReturnDeletedObject: true, TableConvertor: rest.NewDefaultTableConvertor(gr),
	}
	if err := s.CompleteWithOptions(&generic.StoreOptions{RESTOptions: opts, AttrFunc: attrs}); err != nil {
		return nil, nil, err
	}
	sub := *s
	st.onStatus = true
	sub.UpdateStrategy = st
	return s, &sub, nil
}

// podREST is what log, exec and attach share: the way to the pod's kubelet.
type podREST struct {
	pods, nodes *genericregistry.Store
	transport   http.RoundTripper
	verb        string
}

func (r *podREST) New() runtime.Object {
	if r.verb == "log" {
		return &corev1.Pod{}
	}
	return &corev1.PodExecOptions{}
}
func (r *podREST) Destroy() {}

func (r *podREST) locate(ctx context.Context, name, container, path string, q url.Values) (*url.URL, error) {
	o, err := r.pods.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	p := o.(*corev1.Pod)
	if container == "" {
		if len(p.Spec.Containers) != 1 {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s", name))
		}
		container = p.Spec.Containers[0].Name
	}
	if p.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", name))
	}
	no, err := r.nodes.Get(ctx, p.Spec.NodeName, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	n, host := no.(*corev1.Node), ""
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP || host == "" {
			host = a.Address
		}
	}
	return &url.URL{Scheme: "https", Host: fmt.Sprintf("%s:%d", host, n.Status.DaemonEndpoints.KubeletEndpoint.Port), Path: "/" + path + "/" + p.Namespace + "/" + p.Name + "/" + container, RawQuery: q.Encode()}, nil
}

type logREST struct{ podREST }

func (r *logREST) ProducesMIMETypes(string) []string { return []string{"text/plain"} }
func (r *logREST) ProducesObject(string) interface{} { return "" }
func (r *logREST) NewGetOptions() (runtime.Object, bool, string) {
	return &corev1.PodLogOptions{}, false, ""
}
func (r *logREST) Get(ctx context.Context, name string, opts runtime.Object) (runtime.Object, error) {
	o, q := opts.(*corev1.PodLogOptions), url.Values{}
	for k, v := range map[string]bool{"follow": o.Follow, "previous": o.Previous, "timestamps": o.Timestamps} {
		if v {
			q.Set(k, "true")
		}
	}
	for k, v := range map[string]*int64{"tailLines": o.TailLines, "limitBytes": o.LimitBytes, "sinceSeconds": o.SinceSeconds} {
		if v != nil {
			q.Set(k, strconv.FormatInt(*v, 10))
		}
	}
	if o.SinceTime != nil {
		q.Set("sinceTime", o.SinceTime.Format(time.RFC3339))
	}
	u, err := r.locate(ctx, name, o.Container, "containerLogs", q)
	if err != nil {
		return nil, err
	}
	return &genericrest.LocationStreamer{Location: u, Transport: r.transport, ContentType: "text/plain", Flush: o.Follow, ResponseChecker: genericrest.NewGenericHttpResponseChecker(schema.GroupResource{Resource: "pods/log"}, name), RedirectChecker: genericrest.PreventRedirects}, nil
}

type execREST struct{ podREST }

func (r *execREST) NewConnectOptions() (runtime.Object, bool, string) {
	if r.verb == "attach" {
		return &corev1.PodAttachOptions{}, false, ""
	}
	return &corev1.PodExecOptions{}, false, ""
}
func (r *execREST) ConnectMethods() []string { return []string{"GET", "POST"} }
func (r *execREST) Connect(ctx context.Context, name string, opts runtime.Object, responder rest.Responder) (http.Handler, error) {
	q, c, so := url.Values{}, "", translator.Options{}
	set := func(in, out, err, tty bool, container string) {
		c, so = container, translator.Options{Stdin: in, Stdout: out, Stderr: err, Tty: tty}
		for k, v := range map[string]bool{"input": in, "output": out, "error": err, "tty": tty} {
			if v {
				q.Set(k, "1")
			}
		}
	}
	switch o := opts.(type) {
	case *corev1.PodExecOptions:
		set(o.Stdin, o.Stdout, o.Stderr, o.TTY, o.Container)
		q["command"] = o.Command
	case *corev1.PodAttachOptions:
		set(o.Stdin, o.Stdout, o.Stderr, o.TTY, o.Container)
	}
	u, err := r.locate(ctx, name, c, r.verb, q)
	if err != nil {
		return nil, err
	}
	h := utilproxy.NewUpgradeAwareHandler(u, r.transport, false, true, utilproxy.NewErrorResponder(responder))
	if !*translate {
		return h, nil
	}
	return translator.NewTranslatingHandler(h, translator.NewStreamTranslatorHandler(u, r.transport, 0, so), wsstream.IsWebSocketRequestWithStreamCloseProtocol), nil
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func definitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	m := crdopenapi.GetOpenAPIDefinitions(ref)
	for k, v := range generated.GetOpenAPIDefinitions(ref) {
		m[k] = v
	}
	return m
}

func main() {
	flag.Parse()
	ctx := genericapiserver.SetupSignalContext()

	// what both servers of the chain share
	apply := func(c *genericapiserver.RecommendedConfig, etcdOpts *genericoptions.EtcdOptions, serving bool) {
		run := genericoptions.NewServerRunOptions()
		must(run.Complete())
		must(run.ApplyTo(&c.Config))
		must(etcdOpts.ApplyTo(&c.Config))
		if serving {
			so := genericoptions.NewSecureServingOptions()
			so.BindAddress, so.BindPort = []byte{127, 0, 0, 1}, *port
			so.ServerCert.CertKey = genericoptions.CertKey{CertFile: *pki + "/apiserver.crt", KeyFile: *pki + "/apiserver.key"}
			must(so.WithLoopback().ApplyToConfig(&c.Config))
		}
		c.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, openapinamer.NewDefinitionNamer(scheme, apiextensions.Scheme))
		c.OpenAPIConfig.Info.Title = "k8s-apilib"
		c.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, openapinamer.NewDefinitionNamer(scheme, apiextensions.Scheme))
		c.LongRunningFunc = longRunning
	}
	etcdOptions := func(codec runtime.Codec) *genericoptions.EtcdOptions {
		o := genericoptions.NewEtcdOptions(storagebackend.NewDefaultConfig("/registry", codec))
		o.StorageConfig.Transport.ServerList = strings.Split(*etcd, ",")
		return o
	}

	core := genericapiserver.NewRecommendedConfig(codecs)
	coreEtcd := etcdOptions(codecs.LegacyCodec(corev1.SchemeGroupVersion, coordv1.SchemeGroupVersion, storagev1.SchemeGroupVersion, nodev1.SchemeGroupVersion, eventsv1.SchemeGroupVersion))
	apply(core, coreEtcd, true)

	// authentication: client certificates, the token file, the loopback token; authorization: masters, then -allow
	ca, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca", *pki+"/ca.crt")
	must(err)
	must(core.Authentication.ApplyClientCert(ca, core.SecureServing))
	tokens, err := tokenfile.NewCSV(*pki + "/tokens.csv")
	must(err)
	core.Authentication.Authenticator = union.NewFailOnError(group.NewAuthenticatedGroupAdder(union.New(
		x509.NewDynamic(ca.VerifyOptions, x509.CommonNameUserConversion), bearertoken.New(tokenunion.New(tokens)))), anonymous.NewAuthenticator(nil))
	may := map[string]map[string]bool{}
	for _, p := range strings.Split(*allow, ",") {
		if u, n, ok := strings.Cut(p, "="); ok {
			if may[u] == nil {
				may[u] = map[string]bool{}
			}
			may[u][n] = true
		}
	}
	core.Authorization.Authorizer = authzunion.New(authorizerfactory.NewPrivilegedGroups("system:masters", "system:nodes"),
		authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			if !a.IsResourceRequest() || a.IsReadOnly() && may[a.GetUser().GetName()][a.GetNamespace()] {
				return authorizer.DecisionAllow, "", nil
			}
			return authorizer.DecisionNoOpinion, "", nil
		}))

	// CRDs: the real apiextensions server behind ours
	crd := genericapiserver.NewRecommendedConfig(apiextensions.Codecs)
	crdEtcd := etcdOptions(apiextensions.Codecs.LegacyCodec(crdv1.SchemeGroupVersion))
	apply(crd, crdEtcd, false)
	crd.SecureServing, crd.LoopbackClientConfig, crd.Authentication, crd.Authorization = core.SecureServing, nil, core.Authentication, core.Authorization
	crd.SkipOpenAPIInstallation = true
	enable := genericoptions.NewAPIEnablementOptions()
	must(enable.ApplyTo(&crd.Config, apiextensions.DefaultAPIResourceConfigSource(), apiextensions.Scheme))
	coreDone := core.Complete()
	crd.LoopbackClientConfig = core.LoopbackClientConfig
	crdDone := (&apiextensions.Config{GenericConfig: crd, ExtraConfig: apiextensions.ExtraConfig{
		CRDRESTOptionsGetter: crdoptions.NewCRDRESTOptionsGetter(*crdEtcd, crd.ResourceTransformers, crd.StorageObjectCountTracker),
		MasterCount:          1,
		AuthResolverWrapper:  webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, core.LoopbackClientConfig, noopoteltrace.NewTracerProvider()),
	}}).Complete()
	crdServer, err := crdDone.New(genericapiserver.NewEmptyDelegate())
	must(err)
	server, err := coreDone.New("k8s-apilib", crdServer.GenericAPIServer)
	must(err)

	kt := http.DefaultTransport.(*http.Transport).Clone()
	pair, err := tls.LoadX509KeyPair(*pki+"/kubelet-client.crt", *pki+"/kubelet-client.key")
	must(err)
	kt.TLSClientConfig = &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}
	kt.ForceAttemptHTTP2 = false
	kt.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}

	byGroup := map[string]*genericapiserver.APIGroupInfo{}
	stores := map[string]*genericregistry.Store{}
	for _, k := range kinds {
		s, sub, err := newStore(k, core.RESTOptionsGetter)
		must(err)
		g := byGroup[k.gv.Group]
		if g == nil {
			i := genericapiserver.NewDefaultAPIGroupInfo(k.gv.Group, scheme, runtime.NewParameterCodec(scheme), codecs)
			i.PrioritizedVersions = []schema.GroupVersion{k.gv}
			i.VersionedResourcesStorageMap["v1"] = map[string]rest.Storage{}
			g = &i
			byGroup[k.gv.Group] = g
		}
		m := g.VersionedResourcesStorageMap["v1"]
		m[k.resource] = s
		if k.status {
			m[k.resource+"/status"] = &statusREST{sub}
		}
		stores[k.gv.Group+"/"+k.resource] = s
	}
	pr := func(verb string) podREST {
		return podREST{stores["/pods"], stores["/nodes"], kt, verb}
	}
	m := byGroup[""].VersionedResourcesStorageMap["v1"]
	bound := *stores["/pods"]
	bound.UpdateStrategy = strategy{scheme, names.SimpleNameGenerator, kinds[0], false, true}
	m["pods/binding"] = &bindREST{&bound}
	m["pods/log"], m["pods/exec"], m["pods/attach"] = &logREST{pr("log")}, &execREST{pr("exec")}, &execREST{pr("attach")}
	must(server.InstallLegacyAPIGroup("/api", byGroup[""]))
	for n, g := range byGroup {
		if n != "" {
			must(server.InstallAPIGroup(g))
		}
	}
	must(server.PrepareRun().RunWithContext(ctx))
}

// longRunning as in kube-apiserver: watches, logs, exec, attach.
func longRunning(r *http.Request, i *apirequest.RequestInfo) bool {
	return i.Verb == "watch" || i.Subresource == "log" || i.Subresource == "exec" || i.Subresource == "attach"
}
