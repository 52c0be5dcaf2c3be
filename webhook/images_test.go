// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/webhook"
)

// podSpecJSON has an image in every place that a Pod spec has, members in an order that is not the catalog's, and
// things beside them that look alike.
const podSpecJSON = `{
	"volumes": [
		{"name": "none", "emptyDir": {}},
		{"name": "data", "image": {"pullPolicy": "Always", "reference": "data:1"}},
		{"name": "later", "image": {}},
		{"name": "null", "image": null},
		{"name": "ceph", "rbd": {"image": "block-device", "monitors": []}}
	],
	"ephemeralContainers": [{"image": "debug:1", "name": "debug", "targetContainerName": "app"}],
	"initContainers": [{"name": "setup", "image": "setup:1"}, {"name": "proxy", "restartPolicy": "Always", "image": "proxy:1"}],
	"containers": [
		{"image": "app:1", "name": "app", "env": [{"name": "image", "value": "not:this"}]},
		{"name": "filled-in"}
	],
	"imagePullSecrets": [{"name": "one"}, {}, {"name": ""}, {"name": "two"}],
	"serviceAccount": "old", "serviceAccountName": "robot"
}`

// TestGolden finds what there is in one object of each kind of the catalog.
func TestGolden(t *testing.T) {
	inPodSpec := func(path string, blank webhook.Skip) []string {
		found := []string{
			"containers[0].image app=app:1 ", "containers[1].image filled-in= " + string(blank),
			"initContainers[0].image setup=setup:1 ", "initContainers[1].image proxy=proxy:1 ",
			"ephemeralContainers[0].image debug=debug:1 ",
			"volumes[1].image.reference data=data:1 ", "volumes[2].image.reference later= " + string(blank),
		}
		for i := range found {
			found[i] = path + "." + found[i]
		}
		return found
	}
	workload := `{"metadata":{"name":"x"},"spec":{"replicas":1,"template":{"metadata":{},"spec":` + podSpecJSON + `}}}`
	inWorkload := inPodSpec("spec.template.spec", webhook.SkipBlank)
	provider := `{"spec":{"package":"xpkg.example.com/p:v1","image":"not-this","packagePullSecrets":[{"name":"one"},{"name":"two"}]}}`
	revision := `{"spec":{"image":"xpkg.example.com/p:v1","package":"not-this","packagePullSecrets":[{"name":"one"},{"name":"two"}]}}`
	cases := map[string]struct {
		object string
		images []string
	}{
		"Pod": {
			`{"kind":"Pod","metadata":{"annotations":{"image":"x"}},"spec":` + podSpecJSON +
				`,"status":{"containerStatuses":[{"image":"not:this","imageID":"nor-this"}]}}`,
			inPodSpec("spec", webhook.SkipNone),
		},
		"ReplicationController": {workload, inWorkload},
		"PodTemplate":           {`{"template":{"spec":` + podSpecJSON + `}}`, inPodSpec("template.spec", webhook.SkipBlank)},
		"Deployment":            {workload, inWorkload},
		"ReplicaSet":            {workload, inWorkload},
		"StatefulSet":           {workload, inWorkload},
		"DaemonSet":             {workload, inWorkload},
		"Job":                   {workload, inWorkload},
		"CronJob": {
			`{"spec":{"jobTemplate":` + workload + `}}`, inPodSpec("spec.jobTemplate.spec.template.spec", webhook.SkipBlank),
		},
		"Provider":              {provider, []string{"spec.package =xpkg.example.com/p:v1 "}},
		"Configuration":         {provider, []string{"spec.package =xpkg.example.com/p:v1 "}},
		"Function":              {provider, []string{"spec.package =xpkg.example.com/p:v1 "}},
		"ProviderRevision":      {revision, []string{"spec.image =xpkg.example.com/p:v1 "}},
		"ConfigurationRevision": {revision, []string{"spec.image =xpkg.example.com/p:v1 "}},
		"FunctionRevision":      {revision, []string{"spec.image =xpkg.example.com/p:v1 "}},
		"DeploymentRuntimeConfig": {
			`{"spec":{"deploymentTemplate":` + workload + `}}`,
			inPodSpec("spec.deploymentTemplate.spec.template.spec", webhook.SkipBlank),
		},
	}
	for _, row := range load(t).Rows() {
		t.Run(row.Kind, func(t *testing.T) {
			test, ok := cases[row.Kind]
			if !ok {
				t.Fatal("no object of this kind in the table")
			}
			found, err := row.Find([]byte(test.object))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, image := range found.Images {
				// The container's name, as the key has it in brackets.
				_, name, _ := strings.Cut(image.Key(), "[")
				name, _, _ = strings.Cut(name, "]")
				got = append(got, image.Path()+" "+name+"="+image.Written+" "+string(image.Skip))
			}
			if diff := cmp.Diff(test.images, got); diff != "" {
				t.Errorf("images (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"one", "two"}, found.PullSecrets); diff != "" {
				t.Errorf("pull secrets (-want +got):\n%s", diff)
			}
			if podSpec := len(test.images) > 1; podSpec != (found.ServiceAccountName == "robot") {
				t.Errorf("service account %q", found.ServiceAccountName)
			}
		})
	}
}

func TestImagePlaces(t *testing.T) {
	found, err := lookup(t, load(t), "", "v1", "Pod").Find([]byte(`{"spec":{
		"containers":[{"name":"a","image":"x"},{"image":"y","name":"b"}],
		"volumes":[{},{"image":{"reference":"z"},"name":"v"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, image := range found.Images {
		got = append(got, image.Path(), image.Pointer(), image.Key())
	}
	want := []string{
		"spec.containers[0].image", "/spec/containers/0/image", "spec.containers[a].image",
		"spec.containers[1].image", "/spec/containers/1/image", "spec.containers[b].image",
		"spec.volumes[1].image.reference", "/spec/volumes/1/image/reference", "spec.volumes[v].image.reference",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
}

const nestedRow = `rows:
- {group: example.com, versions: [v1], kinds: [{kind: Flow, resource: flows}], decides: Later,
   images: ["spec.tasks[].steps[].image", "spec.plain[]", "spec.matrix[][].image"]}
`

func TestNestedLists(t *testing.T) {
	row := lookup(t, load(t, nestedRow), "example.com", "v1", "Flow")
	found, err := row.Find([]byte(`{"spec":{
		"matrix":[[{"image":"m"}],[],null,[{"name":"n"},{"image":"o","name":"p"}]],
		"plain":["a",null,""],
		"tasks":[{"steps":[{"image":"x","name":"i"},{"image":"y"}],"name":"t"},{"name":"u"},{"steps":[{"image":"z","name":"j"}]}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, image := range found.Images {
		got = append(got, image.Path()+" "+image.Pointer()+" "+image.Key()+"="+image.Written)
	}
	want := []string{
		"spec.tasks[0].steps[0].image /spec/tasks/0/steps/0/image spec.tasks[t].steps[i].image=x",
		"spec.tasks[0].steps[1].image /spec/tasks/0/steps/1/image spec.tasks[t].steps[].image=y",
		"spec.tasks[2].steps[0].image /spec/tasks/2/steps/0/image spec.tasks[].steps[j].image=z",
		"spec.plain[0] /spec/plain/0 spec.plain[]=a",
		"spec.plain[1] /spec/plain/1 spec.plain[]=",
		"spec.plain[2] /spec/plain/2 spec.plain[]=",
		"spec.matrix[0][0].image /spec/matrix/0/0/image spec.matrix[][].image=m",
		"spec.matrix[3][0].image /spec/matrix/3/0/image spec.matrix[][n].image=",
		"spec.matrix[3][1].image /spec/matrix/3/1/image spec.matrix[][p].image=o",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
}

// TestOddObjects: what is odd but no error still shows every image.
func TestOddObjects(t *testing.T) {
	row := lookup(t, load(t), "", "v1", "Pod")
	for _, test := range []struct {
		name, object string
		want         []string
	}{
		{"empty", `{}`, nil},
		{"no spec", `{"metadata":{}}`, nil},
		{"null spec", `{"spec":null}`, nil},
		{"null list", `{"spec":{"containers":null}}`, nil},
		{"empty list", `{"spec":{"containers":[]}}`, nil},
		{"null image", `{"spec":{"containers":[{"name":"a","image":null}]}}`, []string{"spec.containers[0].image= "}},
		{"empty image", `{"spec":{"containers":[{"name":"a","image":""}]}}`, []string{"spec.containers[0].image= "}},
		{"blank image", `{"spec":{"containers":[{"name":"a","image":" "}]}}`, []string{"spec.containers[0].image=  "}},
		{"no image", `{"spec":{"containers":[{"name":"a"}]}}`, []string{"spec.containers[0].image= "}},
		{"null container", `{"spec":{"containers":[null,{"image":"x"}]}}`,
			[]string{"spec.containers[0].image= ", "spec.containers[1].image=x "}},
		{"null volume", `{"spec":{"volumes":[null,{"image":{"reference":null}}]}}`,
			[]string{"spec.volumes[1].image.reference= "}},
		{"no name", `{"spec":{"containers":[{"image":"x"}]}}`, []string{"spec.containers[0].image=x "}},
		{"null name", `{"spec":{"containers":[{"name":null,"image":"x"}]}}`, []string{"spec.containers[0].image=x "}},
		{"one name twice", `{"spec":{"containers":[{"name":"a","image":"x"},{"name":"a","image":"y"}]}}`,
			[]string{"spec.containers[0].image=x ", "spec.containers[1].image=y "}},
		{"escapes in names", `{"sp\u0065c":{"\u0063ontainers":[{"im\u0061ge":"x"}]}}`, []string{"spec.containers[0].image=x "}},
		{"escapes in the image", `{"spec":{"containers":[{"image":"a\/b\u003a1\n"}]}}`, []string{"spec.containers[0].image=a/b:1\n "}},
		{"other case", `{"Spec":{"containers":[{"image":"x"}]},"spec":{"Containers":[{"image":"y"}],"containers":[{"Image":"z"}]}}`,
			[]string{"spec.containers[0].image= "}},
		{"white space", " \n{\t\"spec\" : {\"containers\" : [ { \"image\" : \"x\" } ] } }\r\n", []string{"spec.containers[0].image=x "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			found, err := row.Find([]byte(test.object))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, describe(found.Images)); diff != "" {
				t.Errorf("images (-want +got):\n%s", diff)
			}
		})
	}
}

// TestUnreadableObjects: what could hide an image is an error, and nothing is found at all.
func TestUnreadableObjects(t *testing.T) {
	row := lookup(t, load(t), "", "v1", "Pod")
	const good = `"containers":[{"name":"a","image":"x"}]`
	for _, test := range []struct{ name, object, want string }{
		{"nothing", ``, "expected an object, found nothing"},
		{"white space", " \n", "expected an object, found nothing"},
		{"null", `null`, "expected an object, found null"},
		{"list", `[]`, "expected an object, found a list"},
		{"text", `hello`, "reading Pod: "},
		{"cut off", `{"spec":{` + good, "unexpected EOF"},
		{"cut off in a list", `{"spec":{"containers":[`, "unexpected EOF"},
		{"cut off in a string", `{"spec":{"containers":[{"image":"x`, "unexpected EOF"},
		{"two objects", `{"spec":{` + good + `}} {}`, "after the object"},
		{"garbage after it", `{"spec":{` + good + `}} x`, "invalid character"},
		{"trailing comma", `{"spec":{` + good + `,}}`, "invalid character"},
		{"bracket for brace", `{"spec":{"containers":[{"image":"x"]]}}`, "invalid character"},
		{"brace for bracket", `{"spec":{"containers":[}}}`, `spec.containers[0]: expected an object, found "}"`},
		{"number for a name", `{"spec":{1:2}}`, "name must be a string"},
		{"spec twice", `{"spec":{` + good + `},"spec":{}}`, "duplicate object member name"},
		{"containers twice", `{"spec":{` + good + `,"containers":[]}}`, "duplicate object member name"},
		{"image twice", `{"spec":{"containers":[{"image":"x","image":"y"}]}}`, "duplicate object member name"},
		{"image twice, once with escapes", `{"spec":{"containers":[{"image":"x","im\u0061ge":"y"}]}}`, "duplicate object member name"},
		{"twice where nobody looks", `{"status":{"a":{"b":1,"b":2}},"spec":{` + good + `}}`, "duplicate object member name"},
		{"invalid UTF-8", "{\"spec\":{\"containers\":[{\"image\":\"x\xff\"}]}}", "invalid UTF-8"},
		{"invalid UTF-8 in a name", "{\"spec\":{\"containers\xff\":[]}}", "invalid UTF-8"},
		{"half a surrogate pair", `{"spec":{"containers":[{"image":"\ud800"}]}}`, "surrogate"},
		{"spec is a list", `{"spec":[]}`, "spec: expected an object, found a list"},
		{"spec is a string", `{"spec":"x"}`, "spec: expected an object, found a string"},
		{"list is an object", `{"spec":{"containers":{"a":{"image":"x"}}}}`, "spec.containers: expected a list, found an object"},
		{"list is a string", `{"spec":{"initContainers":"x"}}`, "spec.initContainers: expected a list, found a string"},
		{"container is a string", `{"spec":{"containers":[{},"x"]}}`, "spec.containers[1]: expected an object, found a string"},
		{"container is a list", `{"spec":{"containers":[[{"image":"x"}]]}}`, "spec.containers[0]: expected an object, found a list"},
		{"image is a number", `{"spec":{"containers":[{"image":"x"},{"image":1}]}}`, "spec.containers[1].image: expected a string, found a number"},
		{"image is a boolean", `{"spec":{"containers":[{"image":true}]}}`, "spec.containers[0].image: expected a string, found a boolean"},
		{"image is an object", `{"spec":{"containers":[{"image":{"reference":"x"}}]}}`, "spec.containers[0].image: expected a string, found an object"},
		{"image is a list", `{"spec":{"ephemeralContainers":[{"image":["x"]}]}}`, "spec.ephemeralContainers[0].image: expected a string, found a list"},
		{"volume's image is a string", `{"spec":{"volumes":[{"image":"x"}]}}`, "spec.volumes[0].image: expected an object, found a string"},
		{"reference is a list", `{"spec":{"volumes":[{"image":{"reference":["x"]}}]}}`, "spec.volumes[0].image.reference: expected a string, found a list"},
		{"name is a number", `{"spec":{"containers":[{"name":1,"image":"x"}]}}`, "spec.containers[0].name: expected a string, found a number"},
		{"pull secret is a string", `{"spec":{"imagePullSecrets":["x"]}}`, "spec.imagePullSecrets[0]: expected an object, found a string"},
		{"service account is a list", `{"spec":{"serviceAccountName":[]}}`, "spec.serviceAccountName: expected a string, found a list"},
		{"annotations are a list", `{"metadata":{"annotations":[]}}`, "metadata.annotations: expected an object, found a list"},
		{"too deep", `{"spec":{` + good + `},"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "exceeded max depth"},
	} {
		t.Run(test.name, func(t *testing.T) {
			found, err := row.Find([]byte(test.object))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if diff := cmp.Diff(webhook.Found{}, found); diff != "" {
				t.Errorf("found beside the error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMirrorAndServiceAccount(t *testing.T) {
	for _, test := range []struct {
		kind, object, account string
		mirror                bool
	}{
		{"Pod", `{"metadata":{"annotations":{"kubernetes.io/config.mirror":"abc"}}}`, "", true},
		{"Pod", `{"metadata":{"annotations":{"kubernetes.io/config.mirror":""}}}`, "", true},
		{"Pod", `{"metadata":{"annotations":{"kubernetes.io\/config.mirror":""}}}`, "", true},
		{"Pod", `{"metadata":{"annotations":{"kubernetes.io/config.source":"file"},"labels":{"kubernetes.io/config.mirror":""}}}`, "", false},
		{"Pod", `{"metadata":{"annotations":null},"spec":{"serviceAccount":"old"}}`, "old", false},
		{"Pod", `{"spec":{"serviceAccount":"old","serviceAccountName":"new"}}`, "new", false},
		{"Pod", `{"spec":{"serviceAccountName":"","serviceAccount":"old"}}`, "old", false},
		{"Pod", `{"spec":{"serviceAccountName":null}}`, "", false},
		// Only Pods have mirrors.
		{"PodTemplate", `{"metadata":{"annotations":{"kubernetes.io/config.mirror":"abc"}},
			"template":{"metadata":{"annotations":{"kubernetes.io/config.mirror":"abc"}}}}`, "", false},
	} {
		found, err := lookup(t, load(t), "", "v1", test.kind).Find([]byte(test.object))
		if err != nil || found.Mirror != test.mirror || found.ServiceAccountName != test.account {
			t.Errorf("%s: %+v, %v", test.object, found, err)
		}
	}
}

func TestChanged(t *testing.T) {
	row := lookup(t, load(t), "", "v1", "Pod")
	// Each side is a list of containers list/name=image; list is c, i, e or v.
	object := func(t *testing.T, containers string) webhook.Found {
		t.Helper()
		lists := map[string][]string{}
		for container := range strings.FieldsSeq(containers) {
			list, rest, _ := strings.Cut(container, "/")
			name, image, _ := strings.Cut(rest, "=")
			format := `{"name":%q,"image":%q}`
			if list == "v" {
				format = `{"name":%q,"image":{"reference":%q}}`
			}
			lists[list] = append(lists[list], fmt.Sprintf(format, name, image))
		}
		raw := fmt.Sprintf(`{"spec":{"containers":[%s],"initContainers":[%s],"ephemeralContainers":[%s],"volumes":[%s]}}`,
			strings.Join(lists["c"], ","), strings.Join(lists["i"], ","), strings.Join(lists["e"], ","), strings.Join(lists["v"], ","))
		found, err := row.Find([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	const c, i, e, v = "spec.containers", "spec.initContainers", "spec.ephemeralContainers", "spec.volumes"
	for _, test := range []struct {
		name, old, new string
		want           []string
	}{
		{"nothing", "c/a=x c/b=y i/s=z v/d=w", "c/a=x c/b=y i/s=z v/d=w", nil},
		{"created", "", "c/a=x", []string{c + "[0].image=x "}},
		{"one changed", "c/a=x c/b=y", "c/a=x c/b=z", []string{c + "[1].image=z "}},
		{"another order", "c/a=x c/b=y i/s=z i/t=w", "c/b=y c/a=x i/t=w i/s=z", nil},
		{"images swapped between names", "c/a=x c/b=y", "c/a=y c/b=x", []string{c + "[0].image=y ", c + "[1].image=x "}},
		{"one put before", "c/a=x c/b=y", "c/n=x c/a=x c/b=y", []string{c + "[0].image=x "}},
		{"one removed", "c/a=x c/b=y", "c/b=y", nil},
		{"renamed", "c/a=x", "c/b=x", []string{c + "[0].image=x "}},
		{"ephemeral added", "c/a=x", "c/a=x e/d=x", []string{e + "[0].image=x "}},
		{"from init to regular", "c/a=x i/s=y", "c/a=x c/s=y", []string{c + "[1].image=y "}},
		{"from regular to init", "c/a=x c/s=y", "c/a=x i/s=y", []string{i + "[0].image=y "}},
		{"from container to volume", "c/a=x", "v/a=x", []string{v + "[0].image.reference=x "}},
		{"volume changed", "c/a=x v/d=y", "c/a=x v/d=z", []string{v + "[0].image.reference=z "}},
		{"digest added", "c/a=x:1", "c/a=x:1@sha256:aa", []string{c + "[0].image=x:1@sha256:aa "}},
		{"emptied", "c/a=x", "c/a=", []string{c + "[0].image= "}},
		{"second of the name added", "c/a=x", "c/a=x c/a=y", []string{c + "[1].image=y "}},
		{"second of the name put first", "c/a=x", "c/a=y c/a=x", []string{c + "[0].image=y "}},
		{"second of the name and image", "c/a=x", "c/a=x c/a=x", []string{c + "[1].image=x "}},
		{"one of two of the name changed", "c/a=x c/a=y", "c/a=x c/a=x", []string{c + "[1].image=x "}},
		{"two of the name in another order", "c/a=x c/a=y", "c/a=y c/a=x", nil},
		{"no names", "c/=x c/=y", "c/=y c/=z", []string{c + "[1].image=z "}},
		{"a name like a path", "c/a].image=x", "c/a=x", []string{c + "[0].image=x "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := describe(webhook.Changed(object(t, test.new), object(t, test.old)))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("changed (-want +got):\n%s", diff)
			}
		})
	}
}

// TestManyContainers: 4,096 images are all found, and one more is too many.
func TestManyContainers(t *testing.T) {
	const many = 4096
	row := lookup(t, load(t), "", "v1", "Pod")
	list := func(image func(i int) string) []byte {
		var b bytes.Buffer
		b.WriteString(`{"spec":{"containers":[`)
		for i := range many {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"name":"c%d","image":%q}`, i, image(i))
		}
		b.WriteString(`]}}`)
		return b.Bytes()
	}
	old, err := row.Find(list(func(i int) string { return fmt.Sprint("x:", i) }))
	if err != nil {
		t.Fatal(err)
	}
	object, err := row.Find(list(func(i int) string { return fmt.Sprint("x:", i%(many-1)) }))
	if err != nil {
		t.Fatal(err)
	}
	if len(object.Images) != many {
		t.Errorf("%d images, want %d", len(object.Images), many)
	}
	if got := describe(webhook.Changed(object, old)); !slices.Equal(got, []string{"spec.containers[4095].image=x:0 "}) {
		t.Errorf("changed %v", got)
	}
	if _, err := row.Find([]byte(`{"spec":{"containers":[` + strings.Repeat("{},", many) + `{}]}}`)); err == nil || !strings.Contains(err.Error(), "more than 4096 images") {
		t.Errorf("one more: error %v", err)
	}
}

// TestFindKeepsItsHandsOff: many readers of one row, bytes that are left as they are, and nothing kept of them.
func TestFindKeepsItsHandsOff(t *testing.T) {
	row := lookup(t, load(t), "", "v1", "Pod")
	raw := []byte(`{"metadata":{"annotations":{"a":"b"}},"spec":` + podSpecJSON + `}`)
	before := bytes.Clone(raw)
	want, err := row.Find(raw)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if _, err := row.Find([]byte(`{"spec":{"containers":[{"image":`)); err == nil {
					t.Error("a broken object was read")
				}
				mine := bytes.Clone(raw)
				got, err := row.Find(mine)
				clear(mine)
				if err != nil || !slices.Equal(describe(got.Images), describe(want.Images)) {
					t.Errorf("found %v, %v", describe(got.Images), err)
				}
			}
		})
	}
	wg.Wait()
	if !bytes.Equal(raw, before) {
		t.Error("the object was written to")
	}
}
