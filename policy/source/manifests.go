// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/pratique-dev/pratique/api/crossplane/v1beta1"
	"github.com/pratique-dev/pratique/api/v1alpha1"
)

// maxFile bounds one file of manifests, in bytes.
const maxFile = 64 << 20

// manifests is what files say, by namespace and name.
type manifests struct {
	own        string   // Pratique's own namespace: that of Secrets and ConfigMaps without one
	configs    [][]byte // JSON, in the order of files
	crossplane [][]byte // Crossplane's ImageConfigs, the same
	secrets    map[objectKey]*corev1.Secret
	configMaps map[objectKey]*corev1.ConfigMap
	accounts   map[objectKey]account
	namespaces map[string]map[string]string // labels
	seen       map[string]bool              // kinds with names

	policyController policyObjects
}

type objectKey struct{ namespace, name string }

// once reports the second object of a kind and name: which of them is meant is
// unknown.
func (m *manifests) once(kind, name string) error {
	what := fmt.Sprintf("%s %q", kind, name)
	if m.seen[what] {
		return fmt.Errorf("%s is there twice", what)
	}
	m.seen[what] = true
	return nil
}

// file is one file as it was read.
type file struct {
	path string
	data []byte
}

// readFiles reads the manifests that paths name, without parsing them.
func readFiles(paths []string) ([]file, error) {
	var files []file
	for _, path := range paths {
		names, err := filesOf(path)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			data, err := readBounded(name)
			if err != nil {
				return nil, err
			}
			files = append(files, file{name, data})
		}
	}
	return files, nil
}

// checksum changes whenever files do. That of no files is not zero.
func checksum(files []file) [sha256.Size]byte {
	hash := sha256.New()
	for _, f := range files {
		fmt.Fprintf(hash, "%q %d\n", f.path, len(f.data))
		hash.Write(f.data)
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

// parseFiles parses manifests; own is Pratique's own namespace.
func parseFiles(files []file, own string) (*manifests, error) {
	m := &manifests{
		own: own, secrets: map[objectKey]*corev1.Secret{}, configMaps: map[objectKey]*corev1.ConfigMap{},
		accounts: map[objectKey]account{}, namespaces: map[string]map[string]string{}, seen: map[string]bool{},
	}
	for _, f := range files {
		if err := m.parse(f.data); err != nil {
			return nil, fmt.Errorf("reading %s: %w", f.path, err)
		}
	}
	return m, nil
}

// filesOf lists the manifests of a folder, by name and without its subfolders,
// or the file itself.
func filesOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading policies: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("reading policies: %w", err)
	}
	var files []string
	for _, entry := range entries {
		file := filepath.Join(path, entry.Name())
		// Mounted ConfigMaps are links to files, beside links to folders.
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() || strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading policies: %w", err)
		}
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(file)) {
			files = append(files, file)
		}
	}
	return files, nil
}

func readBounded(file string) ([]byte, error) {
	opened, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading policies: %w", err)
	}
	defer func() { _ = opened.Close() }()
	data, err := io.ReadAll(io.LimitReader(opened, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("reading %s: larger than %d bytes", file, maxFile)
	}
	return data, nil
}

// parse reads the documents of one file. A file without any is a mistake: it
// may be one that is being written, and rules would be lost for that while.
func (m *manifests) parse(data []byte) error {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	empty := true
	for number := 1; ; number++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("document %d: %w", number, err)
		}
		raw, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return fmt.Errorf("document %d: %w", number, err)
		}
		if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
			continue
		}
		empty = false
		if err := m.add(raw); err != nil {
			return fmt.Errorf("document %d: %w", number, err)
		}
	}
	if empty {
		return errors.New("no document in it: delete the file if nothing shall be there")
	}
	return nil
}

// strictly reads JSON. An unknown name, one in another case, or one that is
// given twice is an error.
func strictly(raw []byte, into any) error {
	problems, err := kjson.UnmarshalStrict(raw, into)
	return errors.Join(append(problems, err)...)
}

// addItems reads a list as kubectl prints it: what it holds counts like
// documents of their own.
func (m *manifests) addItems(raw []byte) error {
	var list struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        json.RawMessage   `json:"metadata"`
		Items           []json.RawMessage `json:"items"`
	}
	if err := strictly(raw, &list); err != nil {
		return fmt.Errorf("reading a List: %w", err)
	}
	for i, item := range list.Items {
		if err := m.add(item); err != nil {
			return fmt.Errorf("items[%d]: %w", i, err)
		}
	}
	return nil
}

// add reads one object, given as JSON. Kinds that are not ours to read are
// passed over, but what is no object is a mistake.
func (m *manifests) add(raw []byte) error {
	var object metav1.PartialObjectMetadata
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &object); err != nil {
		return fmt.Errorf("not a Kubernetes object: %w", err)
	}
	if object.Kind == "" || object.APIVersion == "" {
		return errors.New("not a Kubernetes object: it has no apiVersion and kind")
	}
	if is, err := m.addPolicyController(object.APIVersion, object.Kind, object.Name, raw); is {
		return err
	}
	switch kind := object.APIVersion + " " + object.Kind; kind {
	case "v1 Secret":
		return m.addSecret(object.Name, raw)
	case "v1 ConfigMap":
		return m.addConfigMap(object.Name, raw)
	case "v1 Namespace":
		return m.addNamespace(object.Name, raw)
	case "v1 ServiceAccount":
		return m.addAccount(object.Name, raw)
	case "v1 List":
		return m.addItems(raw)
	default:
		return m.addPolicy(kind, object.Name, raw)
	}
}

// addPolicy adds an object if it is of a kind that rules are compiled from.
// Another version of one would be rules that are not in force.
func (m *manifests) addPolicy(kind, name string, raw []byte) error {
	switch kind {
	case v1alpha1.GroupVersion().String() + " " + v1alpha1.KindImageConfig:
		return m.addConfig(v1alpha1.KindImageConfig, name, raw, &m.configs)
	case v1beta1.GroupVersion().String() + " " + v1beta1.KindImageConfig:
		return m.addConfig(KindCrossplane, name, raw, &m.crossplane)
	}
	if strings.HasPrefix(kind, v1alpha1.GroupName+"/") ||
		strings.HasPrefix(kind, v1beta1.GroupName+"/") && strings.HasSuffix(kind, " "+v1beta1.KindImageConfig) {
		return fmt.Errorf("no such kind: %s", kind)
	}
	return nil
}

// addConfig keeps an ImageConfig as it is: the compiler reads it.
func (m *manifests) addConfig(kind, name string, raw []byte, to *[][]byte) error {
	if err := checkName(kind, name); err != nil {
		return err
	}
	*to = append(*to, raw)
	return m.once(kind, name)
}

func (m *manifests) addSecret(name string, raw []byte) error {
	var secret corev1.Secret
	if err := strictly(raw, &secret); err != nil {
		return fmt.Errorf("reading secret %q: %w", name, err)
	}
	if err := checkName("Secret", name); err != nil {
		return err
	}
	for key, text := range secret.StringData {
		if secret.Data == nil {
			secret.Data = map[string][]byte{}
		}
		secret.Data[key] = []byte(text)
	}
	key := objectKey{cmp.Or(secret.Namespace, m.own), name}
	m.secrets[key] = &secret
	return m.once("Secret", key.namespace+"/"+key.name)
}

func (m *manifests) addConfigMap(name string, raw []byte) error {
	var object corev1.ConfigMap
	if err := strictly(raw, &object); err != nil {
		return fmt.Errorf("reading ConfigMap %q: %w", name, err)
	}
	if err := checkName("ConfigMap", name); err != nil {
		return err
	}
	for key := range object.BinaryData {
		if _, twice := object.Data[key]; twice {
			return fmt.Errorf("ConfigMap %q: the key %q is in both data and binaryData", name, key)
		}
	}
	key := objectKey{cmp.Or(object.Namespace, m.own), name}
	m.configMaps[key] = &object
	return m.once("ConfigMap", key.namespace+"/"+key.name)
}

// objects finds what ImageConfigs name.
func (m *manifests) objects() Objects {
	return Objects{
		Secret: func(namespace, name string) (*corev1.Secret, error) {
			return m.secrets[objectKey{namespace, name}], nil
		},
		ConfigMap: func(namespace, name string) (*corev1.ConfigMap, error) {
			return m.configMaps[objectKey{namespace, name}], nil
		},
	}
}

func (m *manifests) addNamespace(name string, raw []byte) error {
	var namespace corev1.Namespace
	if err := strictly(raw, &namespace); err != nil {
		return fmt.Errorf("reading namespace %q: %w", name, err)
	}
	if err := checkName("Namespace", name); err != nil {
		return err
	}
	// Each namespace has this label, as an API server sees to.
	set := map[string]string{}
	maps.Copy(set, namespace.Labels)
	set[corev1.LabelMetadataName] = name
	m.namespaces[name] = set
	return m.once("Namespace", name)
}

// addAccount keeps a ServiceAccount. Without a namespace it would be nobody's:
// objects use those of their own namespace only.
func (m *manifests) addAccount(name string, raw []byte) error {
	var object corev1.ServiceAccount
	if err := strictly(raw, &object); err != nil {
		return fmt.Errorf("reading ServiceAccount %q: %w", name, err)
	}
	if err := checkName("ServiceAccount", name); err != nil {
		return err
	}
	if object.Namespace == "" {
		return fmt.Errorf("ServiceAccount %q: it has no namespace", name)
	}
	key := objectKey{object.Namespace, name}
	m.accounts[key] = readAccount(&object)
	return m.once("ServiceAccount", key.namespace+"/"+key.name)
}

// defaultAccount is the ServiceAccount that each namespace has, as an API
// server sees to.
const defaultAccount = "default"

func (m *manifests) pullSecret(_ context.Context, namespace, name string) (pullSecret, error) {
	return readPullSecret(m.secrets[objectKey{namespace, name}]), nil
}

func (m *manifests) account(_ context.Context, namespace, name string) (account, error) {
	found, ok := m.accounts[objectKey{namespace, name}]
	found.missing = !ok && name != defaultAccount
	return found, nil
}

// checkName refuses what an API server would refuse as a name.
func checkName(kind, name string) error {
	if problems := validation.IsDNS1123Subdomain(name); problems != nil {
		return fmt.Errorf("%s: metadata.name: %q: %s", kind, name, strings.Join(problems, "; "))
	}
	return nil
}
