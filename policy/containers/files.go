// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers/config"
)

// pollEvery is how often the files are read again: changes are in force within 5 s
// (spec section 3). What a kubelet mounts is swapped by links, and network file
// systems do not always tell of changes, so that nothing else is relied on.
const pollEvery = 2 * time.Second

// FilesOptions say which files are read.
type FilesOptions struct {
	// Policy is a containers-policy.json(5), Registries a containers-registries.d(5)
	// folder; either may be empty.
	Policy, Registries string
	// Verify is what the policy's rules verify with; its Registries are those of the
	// folder.
	Verify Options
	// Local allows lookasides that are folders here (file://).
	Local bool
	// Every is how often Run reads the files; 0 is every 2 s.
	Every time.Duration
	// Changed is told when something else is in force; Failed when what was read
	// cannot be, and stays out of force, or with nil when it can again. Either may
	// be nil. Run calls them, one at a time.
	Changed func()
	Failed  func(error)
}

// Files keeps a policy up to date with its files.
type Files struct {
	o      FilesOptions
	loaded atomic.Pointer[Loaded]

	// What follows belongs to whoever reads: NewFiles, and then Run.

	// good is what is in force, as it was parsed, with the keys that were read for it.
	good *filesParsed
	keys map[string]keyFile
	// bad is what was read last and could not be put in force; zero if it could.
	bad [sha256.Size]byte
	// failed is what Failed was told last, nil if all was good then.
	failed error
}

// Loaded is what is in force.
type Loaded struct {
	Rules      []*policy.Rule
	Registries *config.Registries
	// Notes are warnings, and rules that hold images back.
	Notes []config.Problem
}

// filesParsed is a policy and a folder that can be put in force.
type filesParsed struct {
	sum        [sha256.Size]byte
	policy     *config.Policy     // nil without a file
	registries *config.Registries // nil without a folder
	warnings   []config.Problem
}

// NewFiles reads the files for the first time. Mistakes in them are errors.
func NewFiles(o FilesOptions) (*Files, error) {
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	f := &Files{o: o}
	if _, err := f.reload(); err != nil {
		return nil, err
	}
	return f, nil
}

// Loaded is what is in force. It must not be changed.
func (f *Files) Loaded() *Loaded { return f.loaded.Load() }

// Run reads the files again when they change, until ctx ends.
func (f *Files) Run(ctx context.Context) {
	ticker := time.NewTicker(cmp.Or(f.o.Every, pollEvery))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		changed, err := f.reload()
		if changed {
			f.o.Changed()
		}
		f.tell(err)
	}
}

// tell tells of an error once, and once that it is gone.
func (f *Files) tell(err error) {
	if textOf(err) != textOf(f.failed) {
		f.failed = err
		f.o.Failed(err)
	}
}

// textOf is what an error says, "" for none.
func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// reload puts in force what the files say, if it is something else and good. The
// keys of what is in force are read again also while what the files say is bad:
// a key that was taken away must not count on.
func (f *Files) reload() (changed bool, err error) {
	now, err := f.parse()
	if now == nil {
		now = f.good
	}
	if now == nil || now == f.good && !f.rekeyed() {
		return false, err
	}
	f.swap(now)
	return true, err
}

// parse reads the files, and parses them unless that was done the last time. It
// returns what is to be in force by them; nil with an error.
func (f *Files) parse() (*filesParsed, error) {
	read, problems := f.read()
	if len(problems) > 0 {
		f.bad = [sha256.Size]byte{} // what comes back is parsed
		return nil, joinProblems(problems)
	}
	sum := read.sum()
	switch {
	case f.good != nil && sum == f.good.sum:
		f.bad = [sha256.Size]byte{}
		return f.good, nil
	case f.failed != nil && sum == f.bad:
		return nil, f.failed
	}
	p, problems := f.parseAll(read)
	if len(problems) > 0 {
		f.bad = sum
		return nil, joinProblems(problems)
	}
	f.bad, p.sum = [sha256.Size]byte{}, sum
	return p, nil
}

// parseAll parses what was read. The problems are those that keep it out of force.
func (f *Files) parseAll(read *filesRead) (*filesParsed, []config.Problem) {
	p := &filesParsed{}
	var problems []config.Problem
	sort := func(found []config.Problem) {
		for _, problem := range found {
			if problem.Warning {
				p.warnings = append(p.warnings, problem)
			} else {
				problems = append(problems, problem)
			}
		}
	}
	if read.policy != nil {
		parsed, found := config.ParsePolicy(*read.policy)
		sort(found)
		if p.policy = parsed; parsed == nil && len(problems) == 0 {
			problems = append(problems, config.Problem{File: read.policy.Name, Message: "there is no policy in it"})
		}
	}
	if f.o.Registries != "" {
		parsed, found := config.ParseRegistries(read.registries)
		sort(found)
		p.registries = parsed
		if !f.o.Local {
			sort(parsed.Folders())
		}
		for _, name := range read.others {
			sort([]config.Problem{{File: name, Warning: true, Message: "not read: of registries.d only *.yaml is", Hint: "rename it"}})
		}
	}
	return p, problems
}

// swap puts something in force, with the keys as they are now.
func (f *Files) swap(p *filesParsed) {
	keys := map[string]keyFile{}
	loaded := &Loaded{Registries: p.registries, Notes: slices.Clip(p.warnings)}
	if p.policy != nil {
		verify := f.o.Verify
		verify.Registries = p.registries
		var held []config.Problem
		loaded.Rules, held = Rules(verify, p.policy, func(path string) ([]byte, error) {
			one, ok := keys[path]
			if !ok { // once, so that all rules go by the same
				one = readKey(path)
				keys[path] = one
			}
			return one.data, one.err
		})
		for _, problem := range held {
			problem.File = cmp.Or(problem.File, f.o.Policy)
			loaded.Notes = append(loaded.Notes, problem)
		}
	}
	f.good, f.keys = p, keys
	f.loaded.Store(loaded)
}

// rekeyed reports whether a key of what is in force is not what it was.
func (f *Files) rekeyed() bool {
	for path, before := range f.keys {
		if !readKey(path).same(before) {
			return true
		}
	}
	return false
}

// joinProblems makes an error of problems, each on its line.
func joinProblems(problems []config.Problem) error {
	errs := make([]error, len(problems))
	for i, problem := range problems {
		errs[i] = problem
	}
	return errors.Join(errs...)
}
