// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/pratique-dev/pratique/policy/containers/config"
)

const (
	// maxLinted bounds one file, in bytes, as files of manifests are bounded.
	maxLinted = 64 << 20
	// fromStdin is the argument that stands for the standard input, and stdinName
	// what it is called in the output.
	fromStdin = "-"
	stdinName = "<stdin>"
)

// linter checks files.
type linter struct {
	namespace string
	stdin     io.Reader

	order    []string // the files, as they were named or found
	problems []config.Problem

	manifests []manifestFile
	// folders are the files of registries.d folders, in the order of folders.
	folders map[string][]config.File
	// unclear are YAML files that only their neighbours explain.
	unclear []config.File
}

func (l *linter) wrongf(file string, line int, format string, args ...any) {
	l.problems = append(l.problems, config.Problem{File: file, Line: line, Message: fmt.Sprintf(format, args...)})
}

// run reads and checks all files. An error is one of this program's own.
func (l *linter) run(ctx context.Context, paths []string) error {
	l.folders = map[string][]config.File{}
	for _, path := range paths {
		l.path(path)
	}
	l.explain()
	for _, files := range l.folders {
		l.checkRegistries(files)
	}
	return l.checkManifests(ctx)
}

// path reads what an argument names.
func (l *linter) path(path string) {
	if path == fromStdin {
		l.file(stdinName, l.stdin)
		return
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		l.unreadable(path, err)
	case info.IsDir():
		l.folder(path)
	default:
		l.open(path)
	}
}

// unreadable tells of a file that is not read. The name stands before it already.
func (l *linter) unreadable(path string, err error) {
	l.add(path)
	if named, ok := errors.AsType[*fs.PathError](err); ok {
		err = named.Err
	}
	l.wrongf(path, 0, "cannot be read: %v", err)
}

// add notes a file; false if it was named before.
func (l *linter) add(path string) bool {
	if slices.Contains(l.order, path) {
		return false
	}
	l.order = append(l.order, path)
	return true
}

func (l *linter) folder(path string) {
	entries, err := os.ReadDir(path)
	if err != nil {
		l.unreadable(path, err)
		return
	}
	found := false
	for _, entry := range entries {
		file := filepath.Join(path, entry.Name())
		if strings.HasPrefix(entry.Name(), ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(file)) {
			continue
		}
		// Mounted ConfigMaps are links to files.
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			continue
		}
		found = true
		l.open(file)
	}
	if !found {
		l.add(path)
		l.wrongf(path, 0, "no *.yaml, *.yml or *.json in it")
	}
}

func (l *linter) open(path string) {
	opened, err := os.Open(path)
	if err != nil {
		l.unreadable(path, err)
		return
	}
	defer func() { _ = opened.Close() }()
	l.file(path, opened)
}

// file reads one and finds out what it is.
func (l *linter) file(path string, r io.Reader) {
	if !l.add(path) {
		return
	}
	content, err := io.ReadAll(io.LimitReader(r, maxLinted+1))
	switch {
	case err != nil:
		l.unreadable(path, err)
		return
	case len(content) > maxLinted:
		l.wrongf(path, 0, "larger than %d bytes", maxLinted)
		return
	}
	file := config.File{Name: path, Content: content}
	switch kindOf(file) {
	case aManifest:
		l.manifests = append(l.manifests, manifestFile{File: file})
	case aPolicy:
		_, problems := config.ParsePolicy(file)
		l.problems = append(l.problems, problems...)
	case ofRegistries:
		l.registries(file)
	default:
		l.unclear = append(l.unclear, file)
	}
}

// registries keeps a file for its folder's others. What comes from the standard
// input has no name by which it would be read.
func (l *linter) registries(file config.File) {
	if file.Name != stdinName {
		folder := filepath.Dir(file.Name)
		l.folders[folder] = append(l.folders[folder], file)
		return
	}
	before := len(l.problems)
	file.Name += ".yaml"
	l.checkRegistries([]config.File{file})
	for i := range l.problems[before:] {
		l.problems[before+i].File = stdinName
	}
}

// checkRegistries checks the files of one folder.
func (l *linter) checkRegistries(files []config.File) {
	registries, problems := config.ParseRegistries(files)
	l.problems = append(l.problems, problems...)
	for _, folder := range registries.Folders() {
		folder.Warning = true // pratique verify reads it
		l.problems = append(l.problems, folder)
	}
}

// explain takes what is not clear for what its neighbours are: of a folder with
// files of registries.d all are, and one without a name that is known there is
// hardly meant to say nothing.
func (l *linter) explain() {
	for _, file := range l.unclear {
		if _, ok := l.folders[filepath.Dir(file.Name)]; ok {
			l.registries(file)
			continue
		}
		l.manifests = append(l.manifests, manifestFile{File: file, unclear: true})
	}
}

type fileKind int

const (
	unknownKind fileKind = iota
	aManifest
	aPolicy
	ofRegistries
)

var (
	// These tell what a file is that cannot be parsed.
	manifestLine   = regexp.MustCompile(`(?m)^(apiVersion|kind)\s*:`)
	registriesLine = regexp.MustCompile(`(?m)^(default-docker|docker)\s*:`)
)

// kindOf finds out what a file is by what it says.
func kindOf(file config.File) fileKind {
	trimmed := bytes.TrimSpace(file.Content)
	isJSON := filepath.Ext(file.Name) == ".json"
	if isJSON || bytes.HasPrefix(trimmed, []byte("{")) {
		var object struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
		}
		switch err := json.Unmarshal(file.Content, &object); {
		case object.APIVersion != "" || object.Kind != "":
			return aManifest
		case isJSON || err == nil || file.Name == stdinName || strings.Contains(filepath.Base(file.Name), "policy"):
			return aPolicy
		}
	}
	return kindOfYAML(file.Content)
}

func kindOfYAML(content []byte) fileKind {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var document yaml.Node
		if err := decoder.Decode(&document); err != nil {
			break
		}
		switch root := rootOf(&document); {
		case valueOf(root, "apiVersion") != nil || valueOf(root, "kind") != nil:
			return aManifest
		case valueOf(root, "docker") != nil || valueOf(root, "default-docker") != nil:
			return ofRegistries
		}
	}
	// Nothing says so, or it is no YAML.
	switch {
	case manifestLine.Match(content):
		return aManifest
	case registriesLine.Match(content):
		return ofRegistries
	}
	return unknownKind
}
