// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/pratique-dev/pratique/reference"
)

// Registries is a containers-registries.d(5) folder, as far as it is about reading
// signatures. Nil says nothing of any registry.
type Registries struct {
	// sections are by their canonical names; the empty one is default-docker.
	sections map[string]section
	folders  []Problem
}

// Folders are the lookasides that are folders, each where it is written. They are
// read on the command line only: in a container there is nobody's, and whoever
// can put a file there could sign.
func (r *Registries) Folders() []Problem {
	if r == nil {
		return nil
	}
	return r.folders
}

// section is what one namespace says. What is nil is not said.
type section struct {
	lookaside   *url.URL
	attachments *bool
}

// said are the sections that apply to a reference, from the most specific one.
// Each field is that of the first that has it: so does the library, while its
// manual says that only the most specific section counts.
func (r *Registries) said(ref reference.Reference) []section {
	if r == nil {
		return nil
	}
	var found []section
	for _, name := range namespaces(ref) {
		if s, ok := r.sections[name]; ok {
			found = append(found, s)
		}
	}
	return found
}

// namespaces are the names that a reference is looked up under: the image, and the
// scopes that it is in, of which the empty one stands for default-docker.
func namespaces(ref reference.Reference) []string {
	identity := ref.Tagged()
	if identity == "" {
		identity = ref.Repository() + "@" + ref.Digest()
	}
	list := []string{identity}
	for name, domain := range ref.Scopes() {
		if domain {
			name = reference.AnySubdomain + name
		}
		list = append(list, name)
	}
	return list
}

// Lookaside is where the signatures of a reference's repository are, without the
// repository; nil if that is not said.
func (r *Registries) Lookaside(ref reference.Reference) *url.URL {
	for _, s := range r.said(ref) {
		if s.lookaside != nil {
			lookaside := *s.lookaside
			return &lookaside
		}
	}
	return nil
}

// Attachments reports whether sigstore attachments are looked for; said is
// false if nothing says so or otherwise.
func (r *Registries) Attachments(ref reference.Reference) (use, said bool) {
	for _, s := range r.said(ref) {
		if s.attachments != nil {
			return *s.attachments, true
		}
	}
	return false, false
}

// ByReference reports whether any of it is about single tags, or digests: then
// it matters which of the two an image is judged by.
func (r *Registries) ByReference() bool {
	if r == nil {
		return false
	}
	for name, s := range r.sections {
		_, path, _ := strings.Cut(name, "/")
		if strings.ContainsAny(path, ":@") && (s.lookaside != nil || s.attachments != nil) {
			return true
		}
	}
	return false
}

// Hash identifies all of it.
func (r *Registries) Hash() [sha256.Size]byte {
	hash := sha256.New()
	if r != nil {
		for _, name := range slices.Sorted(maps.Keys(r.sections)) {
			s := r.sections[name]
			fmt.Fprintf(hash, "%q", name)
			if s.lookaside != nil {
				fmt.Fprintf(hash, " lookaside %q", s.lookaside.String())
			}
			if s.attachments != nil {
				fmt.Fprintf(hash, " attachments %t", *s.attachments)
			}
			fmt.Fprintln(hash)
		}
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

// ParseRegistries reads the files of a folder, in the order of their names. There
// is nothing of them if one of the problems is more than a warning.
func ParseRegistries(files []File) (*Registries, []Problem) {
	files = slices.SortedStableFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	folder := &folder{registries: &Registries{sections: map[string]section{}}, places: map[string]place{}}
	var problems []Problem
	good := true
	for _, file := range files {
		r := &report{file: file.Name}
		folder.read(r, file)
		problems = append(problems, r.all()...)
		good = good && r.errors == 0
	}
	if !good {
		return nil, problems
	}
	return folder.registries, problems
}

// checkLookaside reads where signatures are. What is written may hold a password,
// and is not repeated.
func checkLookaside(written string) (lookaside *url.URL, mistake, hint string) {
	const example = "write one such as https://signatures.example.com/sigstore"
	u, err := url.Parse(written)
	switch {
	case err != nil || u.Scheme == "":
		return nil, "no absolute URL", example
	case u.User != nil:
		return nil, "a URL with a user: it would be sent to whoever is there, and is in a file that is no secret", example
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, "a URL with ? or #, which the names of signatures cannot be added to", example
	}
	if mistake, hint := checkPlace(u); mistake != "" {
		return nil, mistake, cmp.Or(hint, example)
	}
	return u, "", ""
}

// checkPlace looks at where a URL is, by its scheme.
func checkPlace(u *url.URL) (mistake, hint string) {
	switch u.Scheme {
	case "file":
		if u.Opaque != "" || u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return "no path on this machine", "write file:/// and the path"
		}
	case "http", "https":
		if u.Hostname() == "" {
			return "a URL without a host", ""
		}
	default:
		return "no URL of https, http or file", ""
	}
	return "", ""
}
