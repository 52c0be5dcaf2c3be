// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cel.dev/cel-go/cel"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/pratique-dev/pratique/webhook"
)

// conditionBudget is what all conditions of one webhook may cost for one request
// (k8s.io/apiserver pkg/apis/cel, RuntimeCELCostBudgetMatchConditions).
const conditionBudget = 2_500_000

// spared are the conditions by which the API server does not ask about a kind.
type spared struct {
	row     *webhook.Row
	program cel.Program
}

// spares compiles the conditions of all kinds that have one, with what the API
// server's own environment has of CEL.
func spares(tb testing.TB, extra ...string) map[string]spared {
	tb.Helper()
	catalog := load(tb, extra...)
	options := configured()
	options.Spare = true
	_, validating, err := catalog.Configurations(options)
	if err != nil {
		tb.Fatal(err)
	}
	environment, err := cel.NewEnv(cel.OptionalTypes(), cel.HomogeneousAggregateLiterals(), cel.EagerlyValidateDeclarations(true),
		cel.Variable("object", cel.DynType), cel.Variable("oldObject", cel.DynType), cel.Variable("request", cel.MapType(cel.StringType, cel.StringType)))
	if err != nil {
		tb.Fatal(err)
	}
	all := map[string]spared{}
	for _, hook := range validating.Webhooks {
		for _, condition := range hook.MatchConditions {
			tree, issues := environment.Compile(condition.Expression)
			if issues.Err() != nil {
				tb.Fatalf("%s: %v\n%s", hook.Name, issues.Err(), condition.Expression)
			}
			program, err := environment.Program(tree, cel.EvalOptions(cel.OptTrackCost), cel.CostLimit(conditionBudget))
			if err != nil {
				tb.Fatal(err)
			}
			for _, row := range catalog.Rows() {
				if sent(hook.Rules, row) {
					all[row.Kind] = spared{row, program}
				}
			}
		}
	}
	return all
}

func sent(rules []admissionregistrationv1.RuleWithOperations, row *webhook.Row) bool {
	return slices.ContainsFunc(rules, func(r admissionregistrationv1.RuleWithOperations) bool {
		return r.APIGroups[0] == row.Group && slices.Contains(r.Resources, row.Resource)
	})
}

// called evaluates the condition as the API server does, which hands it objects
// of maps and lists.
func (s spared) called(tb testing.TB, operation, object, old string) (called bool, cost uint64) {
	tb.Helper()
	var values [2]any
	for i, raw := range []string{object, old} {
		if err := json.Unmarshal([]byte(raw), &values[i]); err != nil {
			tb.Fatalf("%v: %s", err, raw)
		}
	}
	result, details, err := s.program.Eval(map[string]any{
		"object": values[0], "oldObject": values[1], "request": map[string]string{"operation": operation},
	})
	if err != nil {
		tb.Fatalf("%s: %v\nobject %s\nold %s", s.row.Kind, err, object, old)
	}
	return result.Value().(bool), *details.ActualCost()
}

// holds fails the test if a call is spared although the visitor sees a change.
func (s spared) holds(tb testing.TB, object, old string) (called bool) {
	tb.Helper()
	called, _ = s.called(tb, "UPDATE", object, old)
	if called {
		return true
	}
	after, err := s.row.Find([]byte(object))
	if err != nil {
		tb.Errorf("%s: spared what cannot be read: %v\n%s", s.row.Kind, err, object)
	}
	before, err := s.row.Find([]byte(old))
	if err != nil {
		tb.Errorf("%s: spared beside what cannot be read: %v\n%s", s.row.Kind, err, old)
	}
	if changed := webhook.Changed(after, before); len(changed) > 0 {
		tb.Errorf("%s: spared, although %s changed\nobject %s\nold %s", s.row.Kind, changed[0].Path(), object, old)
	}
	return false
}

// around puts a Pod spec where each kind has it; status and metadata are of the
// object's own.
var around = map[string]string{
	"Pod":                   `{"spec":%s}`,
	"PodTemplate":           `{"template":{"metadata":{},"spec":%s}}`,
	"CronJob":               `{"spec":{"schedule":"* * * * *","jobTemplate":{"spec":{"template":{"spec":%s}}}}}`,
	"Job":                   `{"spec":{"template":{"spec":%s}}}`,
	"Deployment":            `{"spec":{"replicas":3,"template":{"spec":%s}}}`,
	"ReplicaSet":            `{"spec":{"replicas":3,"template":{"spec":%s}}}`,
	"StatefulSet":           `{"spec":{"replicas":3,"template":{"spec":%s}}}`,
	"DaemonSet":             `{"spec":{"template":{"spec":%s}}}`,
	"ReplicationController": `{"spec":{"replicas":3,"template":{"spec":%s}}}`,
}

// Pods and all built-in workloads are spared, nothing else is.
func TestSparedKinds(t *testing.T) {
	t.Parallel()
	all := spares(t)
	for _, row := range load(t).Rows() {
		_, built := around[row.Kind]
		if _, ok := all[row.Kind]; ok != built || built && (row.Group != "" && row.Group != "apps" && row.Group != "batch") {
			t.Errorf("%s of %q: spared: %t", row.Kind, row.Group, ok)
		}
	}
	// What an admin adds to a kind, or a kind of the admin's, is not seen through.
	more := spares(t, `rows:
- {group: apps, versions: [v1], kinds: [{kind: Deployment, resource: deployments}], images: [spec.template.sidecar], decides: Later}
- {group: batch, versions: [v1], kinds: [{kind: Job, resource: jobs}], podSpecs: ["spec.more[].spec"], decides: Later}
- {group: acme.example, versions: [v1], kinds: [{kind: Farm, resource: farms}], podSpecs: [spec], decides: Here}
`)
	for _, kind := range []string{"Deployment", "Job", "Farm"} {
		if _, ok := more[kind]; ok {
			t.Errorf("%s is spared", kind)
		}
	}
	if _, ok := more["StatefulSet"]; !ok {
		t.Error("StatefulSet is not spared any more")
	}
}

// What happens every minute in every cluster, and must go on while nobody
// answers: it is spared, for every kind.
func TestSparedUpdates(t *testing.T) {
	t.Parallel()
	const spec = `{"containers":[{"name":"a","image":"x.io/a"},{"name":"b"}],"initContainers":[{"name":"i","image":"x.io/i"}],` +
		`"volumes":[{"name":"v","image":{"reference":"x.io/v"}},{"name":"w","image":{}},{"name":"c","configMap":{"name":"c"}}]}`
	for kind, s := range spares(t) {
		old := fmt.Sprintf(around[kind], spec)
		for what, change := range map[string][2]string{
			"nothing":               {`"a"`, `"a"`},
			"scaling down":          {`"replicas":3`, `"replicas":1`},
			"a label":               {`{`, `{"metadata":{"labels":{"a":"b"}},`},
			"finalizers":            {`{`, `{"metadata":{"finalizers":["a/b"]},`},
			"deletion":              {`{`, `{"metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"},`},
			"status":                {`{`, `{"status":{"containerStatuses":[{"image":"other"}],"succeeded":1},`},
			"other fields":          {`"name":"b"`, `"name":"b","env":[{"name":"image","value":"other"}],"resources":{"limits":{"cpu":"1"}}`},
			"another volume":        {`{"name":"c"`, `{"name":"d","emptyDir":{}},{"name":"c"`},
			"no image, written out": {`"name":"b"`, `"name":"b","image":""`},
			"suspension":            {`"spec":{`, `"spec":{"suspend":true,`},
			"no ephemeral ones":     {`"volumes"`, `"ephemeralContainers":null,"volumes"`},
		} {
			if called := s.holds(t, strings.Replace(old, change[0], change[1], 1), old); called {
				t.Errorf("%s: %s is not spared", kind, what)
			}
		}
	}
}

// Whatever brings an image in is asked about, for every kind.
func TestNotSpared(t *testing.T) {
	t.Parallel()
	const spec = `{"containers":[{"name":"a","image":"x.io/a"},{"name":"b"}],"initContainers":[{"name":"i","image":"x.io/i"}],` +
		`"volumes":[{"name":"v","image":{"reference":"x.io/v"}},{"name":"c","configMap":{"name":"c"}}]}`
	for kind, s := range spares(t) {
		old := fmt.Sprintf(around[kind], spec)
		for what, change := range map[string][2]string{
			"an image":                   {`"x.io/a"`, `"x.io/b"`},
			"a filled one":               {`"name":"b"`, `"name":"b","image":"x.io/b"`},
			"of an init container":       {`"x.io/i"`, `"x.io/j"`},
			"one more":                   {`{"name":"b"}`, `{"name":"b"},{"name":"n","image":"x.io/n"}`},
			"one more of the same name":  {`{"name":"b"}`, `{"name":"b"},{"name":"a","image":"x.io/n"}`},
			"an ephemeral one":           {`"volumes"`, `"ephemeralContainers":[{"name":"e","image":"x.io/e"}],"volumes"`},
			"another list":               {`"initContainers"`, `"ephemeralContainers"`},
			"another name":               {`"name":"a"`, `"name":"z"`},
			"another volume image":       {`"x.io/v"`, `"x.io/w"`},
			"one more volume image":      {`"configMap":{"name":"c"}`, `"image":{"reference":"x.io/c"}`},
			"a volume image, blank":      {`"configMap":{"name":"c"}`, `"image":{}`},
			"exchanged with the volumes": {`"x.io/a"`, `"x.io/v"`},
		} {
			object := strings.Replace(old, change[0], change[1], 1)
			if object == old {
				t.Fatalf("%s: nothing changed in %s", what, old)
			}
			if called := s.holds(t, object, old); !called {
				t.Errorf("%s: %s is spared", kind, what)
			}
		}
		for _, none := range []string{"null", "{}"} {
			if called := s.holds(t, old, none); !called {
				t.Errorf("%s: spared beside no old object", kind)
			}
		}
		// A new object is always asked about, whatever is said of an old one.
		if called, cost := s.called(t, "CREATE", old, old); !called || cost > 100 {
			t.Errorf("%s: CREATE: asked %t, cost %d", kind, called, cost)
		}
	}
}

// The cost has a bound, whatever the object: what would be too dear is refused by
// the API server under failurePolicy Fail, and not examined under Ignore.
func TestSpareCost(t *testing.T) {
	t.Parallel()
	specs := func(containers, volumes int) string {
		list := func(n int, format string) string {
			elements := make([]string, n)
			for i := range elements {
				elements[i] = fmt.Sprintf(format, i, i)
			}
			return "[" + strings.Join(elements, ",") + "]"
		}
		return fmt.Sprintf(`{"containers":%s,"volumes":%s}`, list(containers, `{"name":"c%d","image":"x.io/a/b/c:%d"}`),
			list(volumes, `{"name":"v%d","image":{"reference":"x.io/a/b/c:%d"}}`))
	}
	for kind, s := range spares(t) {
		for _, c := range []struct {
			containers, volumes int
			called              bool
			most                uint64
		}{
			{1, 0, false, 2_000},
			{3000, 0, false, conditionBudget / 6},
			{2096, 2000, false, conditionBudget / 4},
			{0, 4096, false, conditionBudget / 4}, // as many as are ever compared, of the dearest
			{4000, 97, true, 2_000},
			{60_000, 0, true, 2_000}, // all that fits into a request
		} {
			object := fmt.Sprintf(around[kind], specs(c.containers, c.volumes))
			called, cost := s.called(t, "UPDATE", object, object)
			if called != c.called || cost > c.most {
				t.Errorf("%s, %d containers, %d volumes: asked %t, want %t; cost %d, at most %d", kind, c.containers, c.volumes, called, c.called, cost, c.most)
			}
			t.Logf("%s, %d containers, %d volumes: cost %d", kind, c.containers, c.volumes, cost)
		}
	}
}

// roughened has absent lists in place of null, null in place of absent, and blank
// strings where there are none.
func (r random) roughened(tb testing.TB, pod *corev1.Pod) string {
	tb.Helper()
	raw, err := json.Marshal(pod.Spec)
	if err != nil {
		tb.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(raw, &spec); err != nil {
		tb.Fatal(err)
	}
	for _, list := range []string{"containers", "initContainers", "ephemeralContainers", "volumes"} {
		elements, _ := spec[list].([]any)
		if len(elements) == 0 {
			switch r.IntN(3) {
			case 0:
				delete(spec, list)
			case 1:
				spec[list] = nil
			case 2:
				spec[list] = []any{}
			}
			continue
		}
		for _, element := range elements {
			object := element.(map[string]any)
			for _, name := range []string{"name", "image"} {
				if text, ok := object[name].(string); ok && text == "" && r.IntN(2) == 0 {
					delete(object, name)
				} else if _, ok := object[name]; !ok && r.IntN(8) == 0 {
					object[name] = nil
				}
			}
		}
	}
	if raw, err = json.Marshal(spec); err != nil {
		tb.Fatal(err)
	}
	return string(raw)
}

// shifted is changed in one more way: image volumes come, go and change, and
// containers move to the ephemeral ones.
func (r random) shifted(pod *corev1.Pod) *corev1.Pod {
	pod = r.changed(pod)
	spec := &pod.Spec
	for range r.IntN(3) {
		switch n := len(spec.Volumes); {
		case n == 0:
		case r.IntN(3) == 0:
			spec.Volumes[r.IntN(n)] = r.volume()
		case r.IntN(2) == 0:
			spec.Volumes = slices.Delete(spec.Volumes, n-1, n)
		default:
			spec.Volumes[r.IntN(n)].Name = r.name()
		}
	}
	if n := len(spec.Containers); n > 0 && r.IntN(6) == 0 {
		moved := spec.Containers[n-1]
		spec.Containers = spec.Containers[:n-1]
		spec.EphemeralContainers = append(spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: moved.Name, Image: moved.Image},
		})
	}
	return pod
}

// TestSpareRandom: of random updates none is spared that changes an image, and of
// those that touch none nearly all are.
func TestSpareRandom(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := random{rand.New(rand.NewPCG(seed, 0))}
	all := spares(t)
	updates, asked := 0, 0
	for range 1500 {
		before := r.pod()
		after := r.shifted(before)
		object, old := r.roughened(t, after), r.roughened(t, before)
		for kind, s := range all {
			if r.IntN(4) > 0 {
				continue
			}
			objectRaw, oldRaw := fmt.Sprintf(around[kind], object), fmt.Sprintf(around[kind], old)
			called := s.holds(t, objectRaw, oldRaw)
			if !slices.Equal(collect(before), collect(after)) {
				continue
			}
			if updates++; called {
				asked++
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	// What is left are members that are null on one side only, as no API server
	// writes them.
	t.Logf("%d updates without a change, asked about %d", updates, asked)
	if updates < 100 || asked*4 > updates {
		t.Errorf("of %d updates without a change, %d are asked about", updates, asked)
	}
}

// FuzzSpare: whatever two objects hold, none is spared if the visitor sees a
// change. What the visitor cannot read no API server sends.
func FuzzSpare(f *testing.F) {
	r := random{rand.New(rand.NewPCG(6, 3))}
	for range 20 {
		before := r.pod()
		f.Add([]byte(r.roughened(f, r.shifted(before))), []byte(r.roughened(f, before)))
	}
	for _, seed := range []string{
		`null`, `{}`, `{"containers":null}`, `{"containers":[null,{}]}`, `{"containers":[{"name":null,"image":null}]}`,
		`{"volumes":[null,{"image":null},{"image":{}},{"image":{"reference":null}}]}`,
		`{"containers":[{"name":"a","image":"x"},{"name":"a","image":"y"}]}`, `{"containers":[{"name":"a","image":"y"},{"name":"a","image":"x"}]}`,
		`{"initContainers":[{"name":"a","image":"x"}]}`, `{"ephemeralContainers":[{"name":"a","image":"x"}]}`,
	} {
		f.Add([]byte(seed), []byte(`{"containers":[{"name":"a","image":"x"}]}`))
		f.Add([]byte(seed), []byte(seed))
	}
	all := spares(f)
	f.Fuzz(func(t *testing.T, object, old []byte) {
		for kind, s := range all {
			objectRaw, oldRaw := fmt.Sprintf(around[kind], object), fmt.Sprintf(around[kind], old)
			if _, err := s.row.Find([]byte(objectRaw)); err != nil {
				continue
			}
			if _, err := s.row.Find([]byte(oldRaw)); err != nil {
				continue
			}
			s.holds(t, objectRaw, oldRaw)
		}
	})
}
