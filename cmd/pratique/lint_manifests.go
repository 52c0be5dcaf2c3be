// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	kjson "sigs.k8s.io/json"
	kyaml "sigs.k8s.io/yaml"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy/containers/config"
	"github.com/pratique-dev/pratique/policy/language"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/policy/trust"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/credential"
)

// manifestFile is a file of manifests.
type manifestFile struct {
	config.File

	// unclear says that nothing in it says what it is.
	unclear bool
}

// checkManifests checks all ImageConfigs, one by one and then together.
func (l *linter) checkManifests(ctx context.Context) error {
	var configs []lintedConfig
	good := true
	for _, file := range l.manifests {
		before := len(l.problems)
		for _, m := range l.documents(file) {
			configs = append(configs, l.object(m)...)
		}
		good = good && !slices.ContainsFunc(l.problems[before:], func(p config.Problem) bool { return !p.Warning })
	}
	if len(configs) == 0 && good {
		return nil
	}
	return l.compile(ctx, configs)
}

// documents divides a file into its objects. Lines are those of the file.
func (l *linter) documents(file manifestFile) []manifest {
	var found []manifest
	empty := true
	for _, part := range splitDocuments(file.Content) {
		raw, err := kyaml.YAMLToJSONStrict(part.text)
		if err != nil {
			empty = false
			l.notYAML(file, part.before, err)
			continue
		}
		if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
			continue
		}
		empty = false
		m := manifest{file: file.Name, raw: raw, before: part.before, line: part.before + 1}
		var document yaml.Node
		if yaml.Unmarshal(part.text, &document) == nil {
			if m.node = rootOf(&document); m.node != nil {
				m.line = part.before + m.node.Line
			}
		}
		found = append(found, m)
	}
	if empty {
		l.wrongf(file.Name, 0, "no document in it: delete the file if nothing shall be there")
	}
	return found
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// notYAML tells of an error of the YAML package, in its line.
func (l *linter) notYAML(file manifestFile, before int, err error) {
	message, line := strings.Join(strings.Fields(err.Error()), " "), before+1
	if at := yamlLine.FindStringSubmatchIndex(message); at != nil {
		if n, err := strconv.Atoi(message[at[2]:at[3]]); err == nil {
			line = before + n
		}
		message = message[at[1]:]
	}
	l.wrongf(file.Name, line, "not YAML: %s", strings.TrimPrefix(message, "yaml: "))
}

// lintedConfig is an ImageConfig, and whether it has an error already.
type lintedConfig struct {
	manifest

	name  string
	wrong bool
}

func (c lintedConfig) said(name string) string {
	return fmt.Sprintf("ImageConfig %q: %s", c.name, name)
}

// object looks for ImageConfigs in an object.
func (l *linter) object(m manifest) []lintedConfig {
	var object struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Items []json.RawMessage `json:"items"`
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(m.raw, &object); err != nil || object.APIVersion == "" || object.Kind == "" {
		l.wrongf(m.file, m.line, "neither a Kubernetes object, which has apiVersion and kind, nor a policy.json or a file of registries.d")
		return nil
	}
	switch {
	case object.Kind == v1alpha1.KindImageConfig && object.APIVersion == v1alpha1.GroupVersion().String():
		c := lintedConfig{manifest: m, name: object.Metadata.Name}
		before := len(l.problems)
		l.imageConfig(c)
		c.wrong = slices.ContainsFunc(l.problems[before:], func(p config.Problem) bool { return !p.Warning })
		return []lintedConfig{c}
	case strings.HasPrefix(object.APIVersion, v1alpha1.GroupName+"/") && object.Items == nil:
		l.wrongf(m.file, m.lineOf("apiVersion"), "there is no kind %q of %q; write %q and %q",
			object.Kind, object.APIVersion, v1alpha1.GroupVersion().String(), v1alpha1.KindImageConfig)
	}
	return l.items(m, object.Items)
}

// items looks for ImageConfigs in a list, as kubectl prints it.
func (l *linter) items(m manifest, list []json.RawMessage) []lintedConfig {
	var found []lintedConfig
	items := valueOf(m.node, "items")
	for i, raw := range list {
		item := manifest{file: m.file, line: m.lineOf(fmt.Sprintf("items[%d]", i)), raw: raw, before: m.before}
		if items != nil && items.Kind == yaml.SequenceNode && i < len(items.Content) {
			item.node = items.Content[i]
		}
		found = append(found, l.object(item)...)
	}
	return found
}

// imageConfig checks one by itself.
func (l *linter) imageConfig(c lintedConfig) {
	decoded, err := v1alpha1.Decode(c.raw)
	if err != nil {
		for _, problem := range errorsOf(err) {
			path, message := fieldOf(problem)
			l.wrongf(c.file, c.lineOf(path), "%s", c.said(message))
		}
		return
	}
	for _, problem := range decoded.Validate() {
		l.wrongf(c.file, c.lineOf(problem.Field), "%s", c.said(problem.Error()))
	}
	for i, match := range decoded.Spec.MatchImages {
		l.prefix(c, fmt.Sprintf("spec.matchImages[%d].prefix", i), match.Prefix)
	}
	l.requirements(c)
}

// errorsOf are the errors that were joined.
func errorsOf(err error) []error {
	if inner := errors.Unwrap(err); inner != nil {
		err = inner
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// fieldOf is the path of the field that an error is about.
func fieldOf(err error) (path, message string) {
	if field, ok := errors.AsType[kjson.FieldError](err); ok {
		return field.FieldPath(), err.Error()
	}
	path, _, _ = strings.Cut(err.Error(), ": ")
	return path, err.Error()
}

// prefix warns of one that ends inside a component: after the host it is plain text.
func (l *linter) prefix(c lintedConfig, path, written string) {
	prefixes, err := reference.ParsePrefix(written)
	if err != nil {
		if !l.told(c, path) {
			l.wrongf(c.file, c.lineOf(path), "%s", c.said(fmt.Sprintf("%s: %q: %v", path, written, err)))
		}
		return
	}
	_, below, _ := strings.Cut(prefixes[0].Text, "/")
	if prefixes[0].Reach != reference.ReachRepository || below == "" || strings.HasSuffix(below, "/") {
		return
	}
	l.problems = append(l.problems, config.Problem{
		File: c.file, Line: c.lineOf(path), Warning: true,
		Message: c.said(fmt.Sprintf("%s: %q ends inside a component: it matches %s-other too", path, written, written)),
		Hint:    fmt.Sprintf("write %q for all that is below it, or leave it for names that begin so", written+"/"),
	})
}

// told reports whether there is an error of a field already.
func (l *linter) told(c lintedConfig, path string) bool {
	return slices.ContainsFunc(l.problems, func(p config.Problem) bool {
		return !p.Warning && p.File == c.file && strings.HasPrefix(p.Message, c.said(path+": "))
	})
}

// requirements checks those of a policy.json.
func (l *linter) requirements(c lintedConfig) {
	n := c.node
	for _, name := range []string{"spec", "verification", "containersPolicy", "requirements"} {
		if n != nil && n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		n = valueOf(n, name)
	}
	if n == nil {
		return
	}
	text := jsonText{line: 1}
	text.node(n, 0)
	for _, p := range config.CheckRequirements(config.File{Name: c.file, Content: text.out}) {
		if p.Line > 0 {
			p.Line += c.before
		}
		p.Message = c.said(p.Message)
		l.problems = append(l.problems, p)
	}
}

// compile compiles all files together, as pratique verify -f does, and tells of
// ImageConfigs that would not be ready, and of files that would not be taken.
func (l *linter) compile(ctx context.Context, configs []lintedConfig) error {
	paths, remove, err := l.paths()
	if err != nil {
		return err
	}
	defer remove()
	command, err := evaluatorCommand()
	if err != nil {
		return err
	}
	checker := language.New(language.Options{Command: command, Workers: 1})
	defer checker.Close()
	files, err := source.NewFiles(lintCompiler(ctx, checker), l.namespace, paths...)
	if err != nil {
		l.refused(paths, err)
		return nil
	}
	for _, compiled := range files.Compiled() {
		if compiled.Rule.Kind != v1alpha1.KindImageConfig {
			continue
		}
		for _, c := range configs {
			if c.name == compiled.Rule.Name && !c.wrong {
				l.compiled(c, compiled)
			}
		}
	}
	return nil
}

// lintCompiler asks nobody: what only a network could tell is left open.
func lintCompiler(ctx context.Context, checker *language.Evaluator) source.Compiler {
	unasked := errors.New("nobody is asked")
	return source.Compiler{
		InjectInto: []string{source.AllNamespaces},
		Clouds:     func(v1alpha1.CredentialProvider) credential.Config { return credential.Config{} },
		Trust:      func() (*trust.Root, error) { return nil, unasked },
		Keys:       func(string) ([]byte, error) { return nil, unasked },
		// What is compiled with it is never asked anything.
		ContainersSource: (*registry.Client)(nil),
		Check: func(p language.Policy) error {
			ctx, cancel := context.WithTimeout(ctx, checkTime)
			defer cancel()
			return checker.Check(ctx, p)
		},
	}
}

// paths are the files of manifests by names that can be opened. What came from
// the standard input gets one.
func (l *linter) paths() (paths []string, remove func(), err error) {
	remove = func() {}
	for _, file := range l.manifests {
		if file.Name != stdinName {
			paths = append(paths, file.Name)
			continue
		}
		copied, err := os.CreateTemp("", "pratique-lint-*.yaml")
		if err != nil {
			return nil, remove, fmt.Errorf("keeping the standard input: %w", err)
		}
		remove = func() { _ = os.Remove(copied.Name()) }
		_, err = copied.Write(file.Content)
		if err = errors.Join(err, copied.Close()); err != nil {
			remove()
			return nil, func() {}, fmt.Errorf("keeping the standard input: %w", err)
		}
		paths = append(paths, copied.Name())
	}
	return paths, remove, nil
}

// refused tells of files that would not be taken, unless it is known why.
func (l *linter) refused(paths []string, err error) {
	for i, path := range paths {
		message, ok := strings.CutPrefix(err.Error(), "reading "+path+": ")
		if !ok {
			continue
		}
		file := l.manifests[i]
		if slices.ContainsFunc(l.problems, func(p config.Problem) bool { return p.File == file.Name && !p.Warning }) {
			return
		}
		line := documentLine(file.Content, message)
		if _, rest, ok := strings.Cut(message, ": "); ok && line > 0 {
			message = rest
		}
		l.wrongf(file.Name, line, "%s", oneLine(message))
		return
	}
	l.wrongf(l.manifests[0].Name, 0, "%s", oneLine(err.Error()))
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// compiled tells what keeps an ImageConfig from being ready.
func (l *linter) compiled(c lintedConfig, compiled source.Compiled) {
	problem := config.Problem{File: c.file, Message: c.said(oneLine(compiled.Message))}
	switch {
	case compiled.Ready || compiled.Reason == v1alpha1.ReasonPending:
		return
	case compiled.Reason == v1alpha1.ReasonSecretNotFound || compiled.Reason == v1alpha1.ReasonConfigMapNotFound:
		problem.Warning = true
		problem.Hint = "name its manifest too, if it is not in the cluster"
	}
	path, _, _ := strings.Cut(compiled.Message, ": ")
	problem.Line = c.lineOf(path)
	l.problems = append(l.problems, problem)
}
