// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pratique-dev/pratique/policy/containers/config"
)

const (
	// maxConfig bounds each file, in bytes: a ConfigMap or Secret, from which they
	// are mounted, has no more (Kubernetes' validation, MaxSecretSize).
	maxConfig = 1 << 20
	// maxRegistries bounds how many files the folder has; a node's has a handful.
	maxRegistries = 256
)

// filesRead is what was read, unparsed.
type filesRead struct {
	policy     *config.File // nil without a file
	registries []config.File
	// others are files of the folder that are not read.
	others []string
}

// read reads the policy and the folder. The problems are with the files that
// cannot be read.
func (f *Files) read() (*filesRead, []config.Problem) {
	read := &filesRead{}
	var problems []config.Problem
	if f.o.Policy != "" {
		file, problem := readConfig(f.o.Policy)
		if problem != nil {
			problems = append(problems, *problem)
		}
		read.policy = &file
	}
	if f.o.Registries == "" {
		return read, problems
	}
	names, others, problem := registriesOf(f.o.Registries)
	if problem != nil {
		return read, append(problems, *problem)
	}
	read.others = others
	for _, name := range names {
		file, problem := readConfig(name)
		if problem != nil {
			problems = append(problems, *problem)
		}
		read.registries = append(read.registries, file)
	}
	return read, problems
}

// registriesOf lists the files of a folder that a node would read, by name, and
// those that seem to be meant and are not read.
func registriesOf(folder string) (names, others []string, problem *config.Problem) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, nil, cannotRead(folder, err)
	}
	for _, entry := range entries { // sorted
		switch name := filepath.Join(folder, entry.Name()); filepath.Ext(name) {
		case ".yaml":
			names = append(names, name)
		case ".yml", ".json", ".conf":
			others = append(others, name)
		}
	}
	if len(names) > maxRegistries {
		return nil, nil, &config.Problem{File: folder, Message: fmt.Sprintf("it has %d files, of which at most %d are read", len(names), maxRegistries)}
	}
	return names, others, nil
}

func readConfig(path string) (config.File, *config.Problem) {
	data, err := readBounded(path)
	if err != nil {
		return config.File{}, cannotRead(path, err)
	}
	return config.File{Name: path, Content: data}, nil
}

// cannotRead says why a file cannot be read. The name is not said twice.
func cannotRead(path string, err error) *config.Problem {
	if known, ok := errors.AsType[*fs.PathError](err); ok {
		err = known.Err
	}
	return &config.Problem{File: path, Message: fmt.Sprintf("it cannot be read: %v", err)}
}

// readBounded reads a file. What is none, as a pipe, might never end or begin.
func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("not a file")}
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfig {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("longer than 1 MiB")}
	}
	return data, nil
}

// sum changes whenever what was read does.
func (f *filesRead) sum() [sha256.Size]byte {
	hash := sha256.New()
	add := func(file config.File) {
		fmt.Fprintf(hash, "%q %d\n", file.Name, len(file.Content))
		hash.Write(file.Content)
	}
	if f.policy != nil {
		add(*f.policy)
	}
	for _, file := range f.registries {
		add(file)
	}
	for _, name := range f.others {
		add(config.File{Name: name})
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

// keyFile is a key file as it was read, or why it could not be.
type keyFile struct {
	data []byte
	err  error
}

func readKey(path string) keyFile {
	data, err := readBounded(path)
	return keyFile{data, err}
}

func (k keyFile) same(other keyFile) bool {
	return bytes.Equal(k.data, other.data) && textOf(k.err) == textOf(other.err)
}
